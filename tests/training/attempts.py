"""Many attempts at small trainings, each in a process of its own, forked so that torch is imported once.

    python attempts.py FOLDER < STORIES

Stories are JSON: by name a list of attempts, each toy.py's arguments after its folder, which is FOLDER/NAME for all
attempts of a story, and what is in its environment beside the rest. Prints JSON: by name a list of [exit code or minus
signal, what was printed].
"""

import json
import os
import sys
import traceback
from pathlib import Path

import toy


def attempt(folder: Path, arguments: list[str], environment: dict[str, str], printed: Path) -> tuple[int, str]:
    """How a fork ends that trains in this folder, and what it prints."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.environ.update(environment)
        os._exit(_child(folder, arguments, printed))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, printed.read_text()


def _child(folder: Path, arguments: list[str], printed: Path) -> int:
    sys.argv, sys.stdout = ["toy.py", str(folder), *arguments], printed.open("w")
    try:
        toy.main()
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
    return 0


def main() -> None:
    folder = Path(sys.argv[1])
    stories: dict[str, list[tuple[list[str], dict[str, str]]]] = json.load(sys.stdin)
    told = {
        name: [attempt(folder / name, *one, folder / "printed") for one in attempts]
        for name, attempts in stories.items()
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
