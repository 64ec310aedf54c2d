"""Every student: learns drawn scenes, weighs masks, and takes nothing that is ignored for background."""

from dataclasses import replace

import pytest
import torch

from pseudolabel.errors import ConfigError
from pseudolabel.students.base import ignored_share, make_student
from pseudolabel.students.config import StudentConfig
from pseudolabel.students.data import Sample, StudentBatch, collate
from pseudolabel.students.names import STUDENTS
from pseudolabel.students.pictures import as_predictions, coco_rows
from pseudolabel.training.denormals import without_denormals

from .scenes import drawn, mean_best_iou, sample

NAMES = tuple(STUDENTS)
STEPS = {"condinst": 300, "mask_rcnn": 160, "query": 300}  # for ten images
RATES = {"condinst": 3e-3, "mask_rcnn": 3e-3, "query": 1e-3}
MASK_LOSSES = {"condinst": ("mask",), "mask_rcnn": ("mask",), "query": ("mask", "dice")}
BOX_LOSSES = {"condinst": ("class", "box", "centerness"), "mask_rcnn": ("class", "box"), "query": ("class",)}


def student(name: str, **changes):
    torch.manual_seed(0)
    shape = {"model": name, "backbone": "tiny", "width": 40, "convs": 1, "detections": 20, **changes}
    return make_student(StudentConfig(**shape), 2)


def losses(model, *samples: Sample, seed: int = 5) -> dict[str, float]:
    """Losses of one batch; the seed decides what Mask R-CNN samples."""
    torch.manual_seed(seed)
    with torch.no_grad():
        return {name: float(value) for name, value in model.losses(collate(samples)).items()}


def overfitted(name: str, batches: list[StudentBatch], steps: int):
    """A student after so many steps over the batches in turns, and its total loss at each."""
    model, totals = student(name), []
    with without_denormals():
        _train(model, name, batches, steps, totals)
    return model.eval(), totals


def _train(model, name: str, batches: list[StudentBatch], steps: int, totals: list[float]) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATES[name])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATES[name], total_steps=steps, pct_start=0.1)
    for step in range(steps):
        optimiser.zero_grad()
        total = torch.stack(list(model.losses(batches[step % len(batches)]).values())).sum()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        totals.append(float(total.detach()))


@pytest.mark.parametrize("name", NAMES)
def test_a_student_s_losses_fall_on_one_image(name):
    _, totals = overfitted(name, [collate([sample(0)])], 24)
    assert sum(totals[-3:]) < 0.7 * sum(totals[:3])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_student_overfits_ten_images(name):
    samples = [sample(seed) for seed in range(10)]
    model, _ = overfitted(name, [collate(samples[:5]), collate(samples[5:])], STEPS[name])
    found_objects, all_objects, overlaps = 0, 0, []
    for seed, one in enumerate(samples):
        scene, found = drawn(seed), model.predict([one.image])[0]
        sure = found.scores > 0.5
        found_objects += int(sure.sum())
        all_objects += len(scene.masks)
        overlaps.append(mean_best_iou(found.masks[sure].numpy(), scene.masks))
    assert abs(found_objects - all_objects) <= 0.1 * all_objects
    assert sum(overlaps) / len(overlaps) > 0.7


@pytest.mark.parametrize("name", NAMES)
def test_the_mask_loss_is_proportional_to_the_weights(name):
    model = student(name)
    full, half = losses(model, sample(0)), losses(model, sample(0, weight=0.5))
    for key in full:
        factor = 0.5 if key in MASK_LOSSES[name] else 1.0
        assert half[key] == pytest.approx(factor * full[key], rel=1e-5)
    assert full["mask"] > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_that_weighs_nothing_changes_nothing(name):
    model = student(name)
    one = sample(0, weight=0.0)
    other = replace(one, masks=one.masks.roll(9, dims=2))
    before, after = losses(model, one), losses(model, other)
    assert (
        [before[key] for key in MASK_LOSSES[name]]
        == [after[key] for key in MASK_LOSSES[name]]
        == [0.0] * len(MASK_LOSSES[name])
    )


@pytest.mark.parametrize("name", NAMES)
def test_an_object_with_a_box_alone_trains_the_detector_and_no_mask(name):
    model = student(name)
    found = losses(model, sample(0, role="box", mask=None))
    assert [found[key] for key in MASK_LOSSES[name]] == [0.0] * len(MASK_LOSSES[name])
    assert all(found[key] > 0 for key in BOX_LOSSES[name])
    if name != "mask_rcnn":
        assert found["projection"] > 0
    if name == "condinst":
        assert found["pairwise"] > 0
        assert losses(model, sample(0))["pairwise"] == 0


@pytest.mark.parametrize("name", [name for name in NAMES if name != "mask_rcnn"])
def test_a_box_alone_among_masks_weighs_as_much_as_one_of_them(name):
    """The same picture once with a mask and once with a box: every loss is half of what it is alone."""
    model = student(name)
    masked, boxed = sample(0), sample(0, role="box", mask=None)
    alone = losses(model, masked), losses(model, boxed)
    together = losses(model, masked, boxed)
    for key in MASK_LOSSES[name]:
        assert together[key] == pytest.approx(alone[0][key] / 2, rel=1e-4)
    for key in {"projection", "pairwise"} & together.keys():
        assert together[key] == pytest.approx(alone[1][key] / 2, rel=1e-4)


def biased(name: str):
    """A student that sees an object of the first class everywhere, so that every piece of background costs much."""
    model = student(name)
    with torch.no_grad():
        if name == "condinst":
            model.network.head.classes.bias[0] = 4.0
        elif name == "mask_rcnn":
            model.proposals.head.cls_logits.bias += 4.0
            model.heads.box_predictor.cls_score.bias[1] = 8.0
        else:
            model.classes.bias[0] = 8.0
            for layer in (model.mask_features[-1], model.mask_embedding[-1]):
                layer.weight.zero_()
                layer.bias.fill_(1.0)
    return model


@pytest.mark.parametrize("name", NAMES)
def test_what_is_ignored_is_no_background(name):
    model = biased(name)
    empty = sample(0, role="ignored", mask=None).select(torch.zeros(0, dtype=torch.bool))
    as_background = losses(model, replace(empty, ignored=torch.zeros_like(empty.ignored)))
    all_ignored = losses(model, replace(empty, ignored=torch.ones_like(empty.ignored)))
    assert as_background["class"] > 0.5
    assert all_ignored["class"] == pytest.approx(0.0, abs=1e-6)
    assert all(value == pytest.approx(0.0, abs=1e-6) for value in all_ignored.values())


def test_condinst_asks_nothing_of_its_own_output_where_it_is_ignored():
    model = student("condinst")
    one = sample(0)
    plane = torch.zeros_like(one.ignored)
    plane[:, 48:] = True
    batch = collate([replace(one.select(one.boxes[:, 2] < 44), ignored=plane)])
    features = model.network(batch.images)
    from pseudolabel.condinst.batch import Targets
    from pseudolabel.condinst.fcos_losses import assign_batch
    from pseudolabel.students.condinst import NEVER, silence_ignored

    logits = features.dense.logits.detach().requires_grad_(True)
    dense = replace(features.dense, logits=logits)
    assigned = assign_batch(dense, (Targets(batch.samples[0].boxes, batch.samples[0].labels),))
    silenced = silence_ignored(dense, assigned, [plane])
    inside = dense.locations.xy[:, 0] >= 48
    free = torch.ones(len(inside), dtype=torch.bool)
    free[assigned.location] = False
    reached = dense.locations.xy.amax(dim=1) < 96
    assert bool((silenced.logits[0, inside & free & reached] == NEVER).all())
    assert torch.equal(silenced.logits[0, ~inside & reached], logits[0, ~inside & reached])


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_is_finite_on_an_image_without_objects(name):
    model = student(name)
    empty = sample(0, role="ignored", mask=None).select(torch.zeros(0, dtype=torch.bool))
    found = model.losses(collate([replace(empty, ignored=torch.zeros_like(empty.ignored))]))
    total = torch.stack(list(found.values())).sum()
    total.backward()
    assert bool(total.isfinite())


@pytest.mark.parametrize("name", NAMES)
def test_losses_in_bf16_are_near_those_in_fp32_and_can_be_differentiated(name):
    model = student(name)
    exact = losses(model, sample(0))
    torch.manual_seed(5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.losses(collate([sample(0)]))
    torch.stack([value.float() for value in found.values()]).sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    plain = {name: float(value.detach()) for name, value in found.items()}
    assert plain == pytest.approx(exact, rel=0.15, abs=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_one_class_is_enough(name):
    torch.manual_seed(0)
    model = make_student(StudentConfig(model=name, backbone="tiny", width=40, convs=1, detections=20), 1)
    found = losses(model, sample(0, label=0))
    assert all(torch.isfinite(torch.tensor(list(found.values()))))


@pytest.mark.parametrize("name", NAMES)
def test_predictions_have_the_size_of_their_image_and_come_best_first(name):
    model = student(name, least_score=0.0).eval()
    wide = torch.nn.functional.pad(sample(0).image, (0, 33))
    alone = model.predict([wide], image_px=96)[0]
    together = model.predict([sample(1).image, wide], image_px=96)[1]
    assert alone.masks.shape[1:] == (96, 129)
    assert alone.scores.tolist() == sorted(alone.scores.tolist(), reverse=True)
    assert torch.equal(alone.masks, together.masks)
    assert len(alone.boxes) == len(alone.labels) == len(alone.scores) == len(alone.masks) <= 20


@pytest.mark.parametrize("name", NAMES)
def test_a_student_reports_as_many_objects_as_it_is_asked_for_the_best_of_them(name):
    model = student(name, least_score=0.0).eval()
    every = model.predict([sample(0).image])[0]
    assert len(every.scores) > 3
    model.find_at_most(3)
    few = model.predict([sample(0).image])[0]
    assert torch.equal(few.scores, every.scores[:3])
    if name == "query":
        with pytest.raises(ConfigError, match=r"has 20 queries .* train it with --detections 25"):
            model.find_at_most(25)
    else:
        model.find_at_most(len(every.scores) + 5)
        assert len(model.predict([sample(0).image])[0].scores) > len(every.scores)


@pytest.mark.parametrize("name", NAMES)
def test_a_student_reports_objects_from_the_score_that_it_is_asked_for(name):
    model = student(name, least_score=1.0).eval()
    assert not len(model.predict([sample(0).image])[0].scores)
    model.find_from(0.0)
    every = student(name, least_score=0.0).eval()
    torch.testing.assert_close(model.predict([sample(0).image])[0].scores, every.predict([sample(0).image])[0].scores)


def test_results_name_categories_by_their_ids_and_read_back():
    scene = drawn(0)
    from pseudolabel.students.base import Instances

    boxes = torch.tensor(scene.boxes_xyxy(), dtype=torch.float32)
    found = Instances(boxes, torch.tensor([1, 0, 0]), torch.tensor([0.9, 0.8, 0.7]), torch.from_numpy(scene.masks))
    rows = list(coco_rows(found, 12, [{"id": 40}, {"id": 7}]))
    assert [row["category_id"] for row in rows] == [7, 40, 40]
    assert [row["score"] for row in rows] == pytest.approx([0.9, 0.8, 0.7])
    assert {one.image_id for one in as_predictions(rows)} == {12}


def test_the_ignored_share_of_a_box_counts_its_pixels():
    plane = torch.zeros(8, 10, dtype=torch.bool)
    plane[:, 6:] = True
    boxes = torch.tensor([[4.0, 0, 8, 8], [0, 0, 3, 3], [6, 2, 30, 30], [20, 20, 30, 30]])
    assert ignored_share(boxes, plane).tolist() == pytest.approx([0.5, 0.0, 1.0, 0.0])


def test_an_unknown_student_names_the_nearest():
    with pytest.raises(ConfigError, match="condinst"):
        make_student(StudentConfig(model="condints"), 2)
