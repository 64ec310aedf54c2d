import ctypes
import hashlib
import io
from collections.abc import Iterator

import pytest
from PIL import Image

from pseudolabel import crash_note
from pseudolabel.crash_note import NOTE_BYTES, decoding, noted
from pseudolabel.errors import RejectError
from pseudolabel.images import check_decodes, decode, read_header


@pytest.fixture
def note() -> Iterator[ctypes.Array]:
    memory = (ctypes.c_ubyte * NOTE_BYTES)()
    yield memory
    crash_note.supervise(None, ())


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=32).hexdigest()


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3)).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_note_tells_what_is_decoded_while_it_is_decoded(note) -> None:
    crash_note.supervise(note, ())
    assert noted(note) is None
    with decoding(b"some bytes"):
        assert noted(note) == _digest(b"some bytes")
    assert noted(note) is None


def test_bytes_that_killed_are_refused_and_others_are_not(note) -> None:
    crash_note.supervise(note, [_digest(b"evil")])
    with pytest.raises(RejectError, match="decoder_crash"), decoding(b"evil"):
        pytest.fail("decoded")
    with decoding(b"good"):
        pass


def test_without_a_supervisor_nothing_is_refused() -> None:
    crash_note.supervise(None, [_digest(b"evil")])
    with decoding(b"evil"):
        pass


@pytest.mark.parametrize("function", [decode, check_decodes, read_header])
def test_every_way_into_the_decoder_is_guarded(note, function) -> None:
    crash_note.supervise(note, [_digest(_png())])
    with pytest.raises(RejectError, match="decoder_crash"):
        function(_png())
    crash_note.supervise(note, ())
    function(_png())
