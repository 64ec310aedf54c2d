"""The table of teachers by name; light, so that the command line can list them and their options."""

from collections.abc import Mapping
from dataclasses import dataclass

from pseudolabel.errors import ConfigError
from pseudolabel.registry import did_you_mean, load_target
from pseudolabel.training.config import TrainConfig


@dataclass(frozen=True, slots=True)
class TeacherMethod:
    """Where the parts of a teacher are, as `module:attribute`; those of its training are empty where others train it.

    `load` is a function (weights, config, *, device, candidates, detections) -> Teacher: at most so many masks for a
    given box, and so many objects of an image without boxes (None: as in training); `config` the class of the options
    of `train-teacher --method NAME`; `method` the `training.method.Method` that takes such a config; `train` a function
    (run, config, folder) -> path of the weights.
    """

    load: str
    config: str = ""
    method: str = ""
    train: str = ""


_CONDINST = "pseudolabel.teachers.condinst"
_LOAD, _TRAIN = f"{_CONDINST}.infer:load_condinst", "pseudolabel.pipelines.trainers.boxes:train_boxes"

TEACHERS: Mapping[str, TeacherMethod] = {
    "mal": TeacherMethod(
        load="pseudolabel.teachers.mal.infer:load_mal",
        config="pseudolabel.teachers.mal.config:MalConfig",
        method="pseudolabel.teachers.mal.method:Mal",
        train="pseudolabel.pipelines.trainers.mal:train_mal",
    ),
    "boxinst": TeacherMethod(_LOAD, f"{_CONDINST}.config:BoxInstConfig", f"{_CONDINST}.boxinst:BoxInst", _TRAIN),
    "boxteacher": TeacherMethod(
        _LOAD, f"{_CONDINST}.config:BoxTeacherConfig", f"{_CONDINST}.boxteacher:BoxTeacher", _TRAIN
    ),
    "boxseg": TeacherMethod(_LOAD, f"{_CONDINST}.config:BoxSegConfig", f"{_CONDINST}.boxseg:BoxSeg", _TRAIN),
    "sim": TeacherMethod(_LOAD, f"{_CONDINST}.config:SimConfig", f"{_CONDINST}.sim:Sim", _TRAIN),
    "student": TeacherMethod("pseudolabel.students.teacher:load_student_teacher"),
}
TRAINED = tuple(name for name, method in TEACHERS.items() if method.train)  # by `train-teacher`


def find_teacher(name: str) -> TeacherMethod:
    """The parts of a teacher; `module:attribute` names a `TeacherMethod` that is not in the table.

    Raises:
        ConfigError: no such name; the message gives the nearest one and the whole list.
    """
    if ":" in name:
        found: TeacherMethod = load_target(name)
        return found
    if name not in TEACHERS:
        raise ConfigError(f"no teacher called {name!r}{did_you_mean(name, TEACHERS)} (known: {', '.join(TEACHERS)})")
    return TEACHERS[name]


def options_of(name: str) -> type[TrainConfig]:
    """The config class of `train-teacher --method NAME`.

    Raises:
        ConfigError: no such method; the message gives the nearest one and the whole list.
    """
    if ":" not in name and name not in TRAINED:
        raise ConfigError(
            f"no method of train-teacher called {name!r}{did_you_mean(name, TRAINED)} (known: {', '.join(TRAINED)})"
        )
    config_class: type[TrainConfig] = load_target(find_teacher(name).config)
    return config_class
