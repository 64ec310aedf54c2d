"""The CondInst family: BoxInst, BoxTeacher, BoxSeg."""
