"""A review as it goes on: which object is next, what an answer is, and what the answers so far bought."""

import datetime as dt
import io
import threading
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pseudolabel.errors import InputError
from pseudolabel.images import load_image
from pseudolabel.metrics.mask_iou import rle_iou
from pseudolabel.pipelines.options.review import ReviewConfig
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.review.queue import Queued, in_order, queued_objects
from pseudolabel.pipelines.review.reviewed import answers_of
from pseudolabel.pipelines.review.scene import FUSED, Scene, Scenes
from pseudolabel.pipelines.review.view import cells_from
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.reviews import Answer, AnswerFile, Shown, Verdict, settled
from pseudolabel.rle import Rle, area, decode_crop, encode_crop

DRAWN = "drawn"
_VERDICTS: tuple[Verdict, ...] = ("accept", "box_only", "wrong_class", "reject", "skip")
_JPEG_QUALITY = 88
_LONGEST_S = 3600.0  # a page that was left open overnight is no look of ten hours
Row = dict[str, Any]


class ConflictError(Exception):
    """The object has an answer already, of another page or of the same one before it was reloaded."""


class Session:
    """One reviewer's look at a run; its methods may be called from several threads.

    Raises:
        InputError: there are no pseudo labels, the run has no boxes, or a file of answers is damaged.
        MachineError: another process writes this reviewer's answers.
    """

    def __init__(self, run: RunPaths, config: ReviewConfig) -> None:
        self._run, self._config = run, config
        self._plan = read_plan(run)
        self._queue = in_order(queued_objects(run), order=config.order, seed=config.seed)
        self._by_id = {one.annotation_id: one for one in self._queue}
        self._names = {int(row["id"]): str(row["name"]) for row in self._plan.categories}
        self._scenes = Scenes(run)
        self.file = AnswerFile(run.reviews / f"{config.reviewer}.jsonl")
        self._others = [one for one in answers_of(run) if one.reviewer != config.reviewer]
        self._before = len(self._own())
        self._moved: dict[int, float] = {}
        self._lock = threading.RLock()
        self._loading = threading.Lock()
        self._scene = lru_cache(maxsize=8)(self._scene_of)
        self._pixels = lru_cache(maxsize=1)(self._load)
        self.jpeg = lru_cache(maxsize=16)(self._jpeg)

    def state(self) -> Row:
        """How far the review is, and the classes that there are."""
        with self._lock:
            return {
                "reviewer": self._config.reviewer,
                "done": len(self._own()),
                "budget": min(self._config.budget, len(self._queue)),
                "counts": dict(Counter(one.verdict for one in self._own().values())),
                "classes": [{"id": key, "name": name} for key, name in self._names.items()],
            }

    def next(self) -> int | None:
        """The id of the next object; None where the budget is used up or nothing is left."""
        with self._lock:
            own, answered = self._own(), settled([*self._others, *self.file.answers])
            if len(own) >= self._config.budget:
                return None
            return next((one.annotation_id for one in self._queue if one.annotation_id not in answered), None)

    def after(self, annotation_id: int) -> int | None:
        """The id of the object behind that one, so that a page can load its picture early."""
        with self._lock:
            answered = settled([*self._others, *self.file.answers])
            waiting = [one.annotation_id for one in self._queue if one.annotation_id not in answered]
            return next((one for one in waiting[:2] if one != annotation_id), None)

    def scene(self, annotation_id: int) -> Row:
        """What the page shows of an object."""
        return self._scene(annotation_id).as_json(self._names)

    def answer(self, said: Mapping[str, Any]) -> None:
        """Write an answer down; it is on the disk when this returns.

        Raises:
            ConflictError: the object has one already.
            InputError: what was said is no answer.
        """
        scene = self._scene(_whole(said, "id"))
        answer = self._answer(scene, said)
        with self._lock:
            if any(one.key == answer.key for one in self.file.answers):
                return  # the page sent it twice, as the first reply did not reach it
            if answer.annotation_id in settled([*self._others, *self.file.answers]):
                raise ConflictError(f"annotation {answer.annotation_id} has an answer already")
            self.file.append(answer)
            if answer.mask is not None:
                self._moved[answer.annotation_id] = rle_iou(scene.choices[0].mask, answer.mask)

    def undo(self, key: str) -> int | None:
        """Take back the last answer that counts; the id of its object, None where there is none."""
        with self._lock:
            own = self._own(skipped=True)
            if not own:
                return None
            places = {id(one): place for place, one in enumerate(self.file.answers)}
            last = max(own.values(), key=lambda one: places[id(one)])
            self.file.append(Answer(last.annotation_id, last.image_key, "undo", now(), self._config.reviewer, key=key))
            self._moved.pop(last.annotation_id, None)
            return last.annotation_id

    def bought(self) -> Row:
        """What the review was about and what it changed, as `--json` prints it."""
        with self._lock:
            own = self._own()
            return {
                "file": str(self.file.path),
                "reviewer": self._config.reviewer,
                "answers": len(own),
                "new": len(own) - self._before,
                "seconds": round(sum(one.seconds for one in self.file.answers), 1),
                "verdicts": dict(Counter(one.verdict for one in own.values())),
                "origins": dict(Counter(one.origin for one in own.values() if one.verdict == "accept")),
                "masks": len(self._moved),
                "mean_iou_before": sum(self._moved.values()) / len(self._moved) if self._moved else None,
                "run": str(self._run.root),
            }

    def _own(self, *, skipped: bool = False) -> dict[int, Answer]:
        """This reviewer's answers that count, by object."""
        return {key: one for key, one in settled(self.file.answers).items() if skipped or one.verdict != "skip"}

    def _answer(self, scene: Scene, said: Mapping[str, Any]) -> Answer:
        verdict, category = said.get("verdict"), said.get("category_id")
        if verdict not in _VERDICTS:
            raise InputError(f"verdict is {verdict!r:.60}, expected one of {', '.join(_VERDICTS)}")
        if category is not None and (type(category) is not int or category not in self._names):
            raise InputError(f"category_id is {category!r:.60}, no class of the run")
        if said.get("seen") != scene.seen:
            raise ConflictError("another mask was shown than stands there now")
        mask, origin = _mask(scene, said) if verdict == "accept" else (None, "")
        return Answer(
            annotation_id=scene.queued.annotation_id,
            image_key=scene.image.key,
            verdict=verdict,
            at=now(),
            reviewer=self._config.reviewer,
            mask=mask,
            category_id=category if category != scene.queued.category_id else None,
            origin=origin,
            seen=scene.seen,
            seconds=_seconds(said.get("seconds")),
            key=str(said.get("key", ""))[:64],
            shown=Shown(scene.choices[0].mask, scene.queued.score, scene.decision),
        )

    def _scene_of(self, annotation_id: int) -> Scene:
        with self._loading:
            return self._scenes.scene(self._queued(annotation_id))

    def _queued(self, annotation_id: int) -> Queued:
        if annotation_id not in self._by_id:
            raise InputError(f"no object has the annotation id {annotation_id}")
        return self._by_id[annotation_id]

    def _jpeg(self, annotation_id: int) -> bytes:
        """The window of an object as a JPEG."""
        scene = self._scene(annotation_id)
        with self._loading:  # one large image in memory at a time
            picture = scene.window.picture(self._pixels(scene.image.file_name))
        stream = io.BytesIO()
        picture.save(stream, format="JPEG", quality=_JPEG_QUALITY)
        return stream.getvalue()

    def _load(self, file_name: str) -> Any:
        return load_image(self._plan.images_root, file_name, rule=self._plan.pixel_rule)


def _mask(scene: Scene, said: Mapping[str, Any]) -> tuple[Rle, str]:
    """The mask that was accepted, and whose it is."""
    place = _whole(said, "choice")
    if not 0 <= place < len(scene.choices):
        raise InputError(f"choice is {place}, there are {len(scene.choices)}")
    choice = scene.choices[place]
    if said.get("edit") is None:
        return choice.mask, choice.origin
    cells = cells_from(said["edit"], scene.window.rows, scene.window.columns)
    mask = encode_crop(scene.window.edited(decode_crop(choice.mask), cells), scene.image.size_hw)
    if area(mask) == 0:
        raise InputError("the mask is empty; say  box only  or  reject  instead")
    return mask, DRAWN


def _whole(said: Mapping[str, Any], name: str) -> int:
    value = said.get(name)
    if type(value) is not int:
        raise InputError(f"{name} is {value!r:.60}, expected a whole number")
    return value


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or not value >= 0:
        raise InputError(f"seconds is {value!r:.60}, expected a number from 0 on")
    return round(min(float(value), _LONGEST_S), 2)


def now() -> str:
    """This moment as answers have it."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")


__all__ = ["DRAWN", "FUSED", "ConflictError", "Session"]
