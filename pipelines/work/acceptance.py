"""Whether too much of a run was rejected: more than `--max-reject-rate` allows, or all of it."""

from collections.abc import Iterable
from dataclasses import replace
from typing import NoReturn

from pseudolabel.errors import IncompleteError, InputError
from pseudolabel.pipelines.run.commit import Footer
from pseudolabel.pipelines.run.conservation import Count, Counts, total
from pseudolabel.pipelines.run.known_parts import KnownParts
from pseudolabel.pipelines.work.job import Job
from pseudolabel.pipelines.work.rejects import example


class Acceptance:
    """Watches the rejects of a stage over all shards of its run.

    Args:
        table: that the stage writes.
        asked: the table that says how many images and objects there are: the plan, or the manifest.
    """

    def __init__(self, job: Job, table: str, asked: str) -> None:
        self._job, self._table, self._asked = job, table, asked
        self._seen: dict[int, Counts] = {}
        self._whole: Counts | None = None

    def add(self, footer: Footer) -> None:
        """One more part is there.

        Raises:
            InputError, IncompleteError: as `check`; whatever comes, the limit cannot be met any more.
        """
        self._seen[footer.shard] = footer.counted
        if footer.counted.images.n_rejected or footer.counted.objects.n_rejected:
            so_far = total(self._seen.values())
            whole = self._whole or self._ask()
            for unit, count, n_in in (
                ("images", so_far.images, whole.images.n_in),
                ("objects", so_far.objects, whole.objects.n_in),
            ):
                of_all = max(n_in, count.n_in)
                if count.n_rejected > self._limit * of_all:
                    self._refuse_nothing(so_far, [footer])
                    left = len(self._seen) < self._job.plan.num_shards
                    more = "; not all shards were tried" if left else ""
                    self._refuse(unit, replace(count, n_in=of_all), [footer], more)

    def check(self, footers: Iterable[Footer]) -> None:
        """All parts are there.

        Raises:
            InputError: not one box, or of a folder of label maps not one file, can be used.
            IncompleteError: more was rejected than the limit allows.
        """
        parts = list(footers)
        counts = total(part.counted for part in parts)
        self._refuse_nothing(counts, parts)
        for unit, count in (("images", counts.images), ("objects", counts.objects)):
            if count.n_rejected > self._limit * count.n_in:
                self._refuse(unit, count, parts, "")

    @property
    def _limit(self) -> float:
        return self._job.parsed_config.max_reject_rate

    def _ask(self) -> Counts:
        """What the input tables hold; before `shard` has run, with what the reader refused."""
        shards = range(self._job.plan.num_shards)
        looks = KnownParts(self._job.run, self._asked, len(shards)).footers(shards).values()
        counts = total(look.counted for look in looks if isinstance(look, Footer))
        if self._asked == "plan":
            self._whole = counts
        else:
            self._whole = Counts(Count(counts.images.n_ok), Count(counts.objects.n_ok))
        return self._whole

    def _refuse_nothing(self, counts: Counts, parts: list[Footer]) -> None:
        images, objects, name = counts.images, counts.objects, self._job.stage
        if self._asked == "plan" and objects.n_in and not objects.n_ok and images.n_ok:
            raise InputError(
                f"{name}: not one of {objects.n_in} boxes can be used ({told(objects)}), such as "
                f"{example(self._job.run, self._table, parts)}. "
                "To go on without boxes, make a run without --annotations"
            )
        if images.n_in and images.reasons == {"no_label_file": images.n_in}:
            found = example(self._job.run, self._table, parts)
            raise InputError(f"{name}: no label map belongs to any of the {images.n_in} images, such as {found}")

    def _refuse(self, unit: str, count: Count, parts: list[Footer], more: str) -> NoReturn:
        found = example(self._job.run, self._table, parts).rstrip(".")
        place = f" Is {self._job.plan.images_root} where they lie?" if "missing" in count.reasons else ""
        raise IncompleteError(
            f"{self._job.stage}: {count.n_rejected} of {count.n_in} {unit} were rejected ({told(count)}), such as "
            f"{found}. That is more than --max-reject-rate {self._limit:g} allows{more}.{place} "
            f"pseudolabel status {self._job.run.typed} --rejected  lists them"
        )


def told(count: Count) -> str:
    """The reasons with their counts, most frequent first: `empty_box 2, no_such_category 1`."""
    pairs = sorted(count.reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{reason} {n}" for reason, n in pairs)
