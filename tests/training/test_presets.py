import pytest

from pseudolabel.pipelines.options.train_student import TrainStudentConfig
from pseudolabel.teachers.mal.config import MalConfig


def test_what_is_said_wins_over_the_preset_and_the_rest_is_the_preset_s() -> None:
    small = MalConfig(preset="small", crop_px=64)
    assert (small.crop_px, small.epochs) == (64, 3.0)
    assert (MalConfig().crop_px, MalConfig().epochs) == (128, 8.0)


def test_a_preset_s_epochs_give_way_to_steps() -> None:
    assert MalConfig(preset="small", steps=5).steps_for(1000) == 5
    assert TrainStudentConfig(preset="small", steps=5).epochs == TrainStudentConfig().epochs


def test_a_small_student_is_small() -> None:
    small, base = TrainStudentConfig(preset="small"), TrainStudentConfig()
    assert (small.width, small.convs, small.image_px) == (64, 2, 256)
    assert (base.width, base.convs, base.image_px) == (256, 4, 512)


@pytest.mark.parametrize("config", [MalConfig, TrainStudentConfig])
def test_a_config_that_was_filled_in_is_the_same_when_it_is_read_again(
    config: type[MalConfig] | type[TrainStudentConfig],
) -> None:
    small = config(preset="small")
    assert config.model_validate(small.model_dump()) == small
