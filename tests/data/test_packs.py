"""Copies of images: the same pixels whether a pack has them or not, never stale, whatever befalls the packs."""

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convit.data import FileImages, ImageSet, Preprocess
from convit.data.copies import Copies, Fitted, Reduced, Way
from convit.data.keeping import keep
from convit.data.packs import SETTLED, Cache, Packs, cache_folder
from convit.events import Event, PassBegan, Said
from convit.preprocess import prepared
from tests.helpers import noise

WAYS = [Reduced(20), Fitted.to(Preprocess(image_size=(12, 16), crop_pct=0.9))]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def images(tmp_path: Path) -> FileImages:
    """Of every kind: reduced JPEGs, a turned one, a grey one, one that is smaller than its copy could be, a PNG with
    transparency, and one of 16 bits."""
    root = tmp_path / "photos"
    root.mkdir()
    noise(170, 300).save(root / "large.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    noise(130, 230, 1).save(root / "turned.jpg", exif=turned)
    noise(60, 90, 2).convert("L").save(root / "grey.jpg")
    noise(9, 11, 3).save(root / "small.png")
    clear = noise(48, 64, 4).convert("RGBA")
    clear.putalpha(90)
    clear.save(root / "clear.png")
    deep = np.random.default_rng(5).integers(0, 4096, (50, 70), dtype=np.uint16)
    Image.fromarray(deep).save(root / "deep.png")
    names = sorted(path.name for path in root.iterdir())
    return FileImages(root, names, [0] * len(names), ["any"]).scaled(4095.0)


def packs(way: Way, gb: float = 1.0) -> Packs:
    return Cache(gb).of("some", way)


def pixels(copies: Copies) -> list[tuple[tuple[int, int], bytes]]:
    found = [copies.read(i) for i in range(len(copies))]
    return [(image.size, image.tobytes()) for image in found]


def passed(images: ImageSet, place: Packs) -> tuple[int, list[str]]:
    """Keeps the copies; gives how many images were decoded for it, and what was said."""
    heard: list[Event] = []
    keep([(images, place)], "checking images", heard.append)
    decoded = sum(event.images for event in heard if isinstance(event, PassBegan))
    return decoded, [event.text for event in heard if isinstance(event, Said)]


def aged(images: FileImages, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the files were written some time ago: nothing can set back a ctime, but what counts as young can be."""
    monkeypatch.setattr("convit.data.packs.SETTLED", -SETTLED)


@pytest.mark.parametrize("way", WAYS)
def test_same_pixels_with_and_without_packs(way: Way, images: FileImages) -> None:
    without = pixels(Copies(images, way))
    assert passed(images, packs(way)) == (6, [])
    kept = packs(way).copies(images)
    assert kept.kept.all()
    shutil.move(images.root, images.root.with_name("away"))  # nothing is read from the files
    assert pixels(kept) == without


def test_a_copy_to_evaluate_is_what_predict_sees(images: FileImages) -> None:
    preprocess = Preprocess(image_size=(12, 16), crop_pct=0.9, full_scale=4095.0)
    copies = Copies(images, Fitted.to(preprocess))
    plain = Preprocess(image_size=(12, 16), full_scale=4095.0)
    for index in range(len(images)):
        np.testing.assert_array_equal(prepared(copies.read(index), plain), prepared(images.stored(index), preprocess))


def test_images_are_reduced_but_never_below_the_side(images: FileImages) -> None:
    sizes = dict(zip(images.names, [Copies(images, Reduced(20)).read(i).size for i in range(6)], strict=True))
    assert sizes["large.jpg"] == (35, 20)
    assert sizes["turned.jpg"] == (20, 35)
    assert sizes["small.png"] == (11, 9)
    assert images.read(images.names.index("large.jpg"), side=20).size == (38, 22)  # decoded at an eighth


@pytest.mark.parametrize("old", [True, False])
def test_the_next_start_decodes_nothing(old: bool, images: FileImages, monkeypatch: pytest.MonkeyPatch) -> None:
    if old:
        aged(images, monkeypatch)
    assert passed(images, packs(WAYS[0]))[0] == 6
    if old:  # not even opened
        monkeypatch.setattr(FileImages, "checksum", None)
        monkeypatch.setattr(FileImages, "stored", None)
    assert passed(images, packs(WAYS[0])) == (0, [])


def test_grey_values_are_remembered(images: FileImages) -> None:
    unscaled = images.scaled(None)
    for _ in range(2):
        assert keep([(unscaled, packs(WAYS[0]))], "checking", lambda event: None).levels.whole is not None
    assert passed(images, packs(WAYS[0]))[0] == 1  # the deep one, now that its full scale is known
    assert passed(images.scaled(65535.0), packs(WAYS[0]))[0] == 1
    kept = packs(WAYS[0]).copies(images.scaled(65535.0))
    assert pixels(kept) == pixels(Copies(images.scaled(65535.0), WAYS[0]))


@pytest.mark.parametrize("young", [True, False])
def test_a_changed_file_with_its_size_and_time_kept(
    young: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise(30, 30, 1).save(tmp_path / "a.bmp")
    images = FileImages(tmp_path, ["a.bmp"], [0], ["any"])
    if not young:
        aged(images, monkeypatch)
    passed(images, packs(WAYS[0]))
    before = (tmp_path / "a.bmp").stat()
    noise(30, 30, 2).save(tmp_path / "a.bmp")
    os.utime(tmp_path / "a.bmp", ns=(before.st_atime_ns, before.st_mtime_ns))
    after = (tmp_path / "a.bmp").stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    fresh = pixels(Copies(images, WAYS[0]))
    assert pixels(packs(WAYS[0]).copies(images)) == fresh
    assert passed(images, packs(WAYS[0])) == (1, [])
    assert pixels(packs(WAYS[0]).copies(images)) == fresh


def test_a_change_that_even_ctime_does_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within one tick of a file system's clock: the stamp is the same, so the checksum decides."""
    noise(30, 30, 1).save(tmp_path / "a.bmp")
    images = FileImages(tmp_path, ["a.bmp"], [0], ["any"])
    stamp = images.stamp(0)
    monkeypatch.setattr(FileImages, "stamp", lambda self, index: stamp)
    monkeypatch.setattr(FileImages, "stamps", lambda self: [stamp])
    passed(images, packs(WAYS[0]))
    noise(30, 30, 2).save(tmp_path / "a.bmp")
    assert pixels(packs(WAYS[0]).copies(images)) == pixels(Copies(images, WAYS[0]))


def test_a_file_that_is_written_while_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise(30, 30, 1).save(tmp_path / "a.png")
    images = FileImages(tmp_path, ["a.png"], [0], ["any"])
    stored = FileImages.stored

    def slow(self: FileImages, index: int, side: int | None = None) -> Image.Image:
        found = stored(self, index, side)
        noise(30, 30, 2).save(tmp_path / "a.png")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(FileImages, "stored", slow)
        passed(images, packs(WAYS[0]))
    assert pixels(packs(WAYS[0]).copies(images)) == pixels(Copies(images, WAYS[0]))


def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def cut(file: Path, at: int) -> None:
    file.write_bytes(file.read_bytes()[:at])


DAMAGES: list[tuple[Callable[[Path, int], None], float, str]] = [
    (flip, 0.05, "1 copy of images damaged: decoded again"),  # its pixels
    (flip, 0.97, "damaged copies: removed"),  # the index
    (flip, 0.9999, "damaged copies: removed"),  # the end
    (cut, 0.5, "damaged copies: removed"),
    (cut, 0.0, "damaged copies: removed"),
]


@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize(("damage", "where", "said"), DAMAGES)
def test_damaged_packs(
    damage: Callable[[Path, int], None], where: float, said: str, read: bool, images: FileImages
) -> None:
    expected = pixels(Copies(images, WAYS[0]))
    passed(images, packs(WAYS[0]))
    (file,) = packs(WAYS[0]).folder.iterdir()
    damage(file, int(where * file.stat().st_size))
    if read:
        assert pixels(packs(WAYS[0]).copies(images)) == expected  # as a run would read them that is going on
    decoded, lines = passed(images, packs(WAYS[0]))
    assert decoded == (1 if (damage, where) == (flip, 0.05) else 6)
    if decoded == 1 or not read:  # else the read above removed the file
        assert len(lines) == 1
        assert said in lines[0]
    assert passed(images, packs(WAYS[0])) == (0, [])
    assert pixels(packs(WAYS[0]).copies(images)) == expected


def test_a_pack_that_is_gone_while_it_is_read(images: FileImages) -> None:
    expected = pixels(Copies(images, WAYS[0]))
    passed(images, packs(WAYS[0]))
    kept = packs(WAYS[0]).copies(images)
    shutil.rmtree(cache_folder())
    assert pixels(kept) == expected


@pytest.mark.parametrize("there", ["a file", "no rights"])
def test_a_folder_that_cannot_be_written_to(there: str, images: FileImages, monkeypatch: pytest.MonkeyPatch) -> None:
    if there == "a file":
        cache_folder().parent.mkdir(parents=True)
        cache_folder().write_text("")
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", "/proc")
    decoded, lines = passed(images, packs(WAYS[0]))
    assert decoded == 6
    assert len(lines) == 1
    assert "no copies of the images are kept" in lines[0]
    assert not packs(WAYS[0]).copies(images).kept.any()


def test_copies_that_do_not_fit(images: FileImages) -> None:
    room = 3 * 20 * 35 * 3 + 100  # of about three
    decoded, lines = passed(images, packs(WAYS[0], room / 1e9))
    assert decoded == 6
    assert len(lines) == 1
    assert "not fit --cache-gb 6.4e-06" in lines[0]
    some = packs(WAYS[0], room / 1e9).copies(images)
    assert 0 < some.kept.sum() < 6
    assert pixels(some) == pixels(Copies(images, WAYS[0]))
    assert passed(images, packs(WAYS[0], room / 1e9)) == (0, [])  # not decoded only to be left out again
    assert passed(images, packs(WAYS[0]))[0] == 6 - some.kept.sum()  # now there is room


def test_none_are_kept_for_zero(images: FileImages) -> None:
    assert passed(images, packs(WAYS[0], 0)) == (6, [])
    assert not cache_folder().exists()


def test_what_was_not_read_for_longest_goes(images: FileImages) -> None:
    places = [Cache(1).of(root, WAYS[0]) for root in ("old", "new", "forgotten")]
    for age, place in zip((9, 1, 99), places, strict=True):
        passed(images, place)
        (file,) = place.folder.iterdir()
        os.utime(file, (file.stat().st_atime, file.stat().st_mtime - age * 86400))
    size = file.stat().st_size
    (places[1].folder / ".x.pack.tmp").write_bytes(b"of a killed run")
    os.utime(places[1].folder / ".x.pack.tmp", (0, 0))
    Cache(1).clean()
    assert [place.folder.exists() for place in places] == [True, True, False]
    Cache(1.5 * size / 1e9).clean()
    assert [place.folder.exists() for place in places] == [False, True, False]
    assert len(list(places[1].folder.iterdir())) == 1
    assert passed(images, places[1]) == (0, [])


def test_two_at_once(images: FileImages) -> None:
    threads = [threading.Thread(target=passed, args=(images, packs(WAYS[0]))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert passed(images, packs(WAYS[0])) == (0, [])
    assert pixels(packs(WAYS[0]).copies(images)) == pixels(Copies(images, WAYS[0]))


def test_other_ways_and_other_data_share_nothing(images: FileImages) -> None:
    passed(images, packs(WAYS[0]))
    assert passed(images, packs(WAYS[1]))[0] == 6
    assert passed(images, packs(Reduced(21)))[0] == 6
    assert passed(images, Cache(1).of("other", WAYS[0]))[0] == 6
