"""The CondInst family: BoxInst, BoxTeacher, BoxSeg, SIM."""
