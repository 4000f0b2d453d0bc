import json

import numpy as np
import pytest
from PIL import Image

from audiopg.data_scripts.patterns import PATTERNS
from audiopg.data_scripts.patterns.measures import to_bytes, total_variation
from audiopg.data_scripts.patterns.sheet import draw_sheet, main


def test_the_sheet_has_a_row_per_set_and_its_numbers_beside(tmp_path, capsys):
    main([str(tmp_path), "--sets", "perlin", "zone_plates", "--num_images", "10", "--size", "64", "--seed", "3"])
    assert "2 sets" in capsys.readouterr().err
    results = json.loads((tmp_path / "sheet.json").read_text())
    assert (results["num_images"], results["size"], results["seed"]) == (10, 64, 3)
    assert list(results["sets"]) == ["perlin", "zone_plates"]
    variation = total_variation(PATTERNS["perlin"].images(3, range(10), 64)).double()
    found = results["sets"]["perlin"]["total_variation"]
    assert found["mean"] == pytest.approx(float(variation.mean()), abs=1e-5)
    assert found["std"] == pytest.approx(float(variation.std(correction=0)), abs=1e-5)
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.width > picture.height


def test_rows_are_shown_from_the_top_down_as_the_images_have_them(tmp_path):
    rows = np.zeros((1, 40, 40, 3), np.uint8)
    rows[:, :20, :, 0] = 255  # red above, black below
    measured = {"x": {name: {"mean": 0.0} for name in ("total_variation", "blank_share", "flat_share")}}
    measured["x"]["bits_per_pixel"] = {"mean": 1.0}
    picture = np.asarray(Image.open(draw_sheet({"x": rows}, measured, tmp_path / "sheet.png")).convert("RGB")).astype(
        int
    )
    red, black = (np.argwhere((np.abs(picture - colour) < 40).all(axis=2)) for colour in ((255, 0, 0), (0, 0, 0)))
    assert red[:, 0].mean() < np.median(black[:, 0])


@pytest.mark.parametrize(
    ("arguments", "said"), [(["--sets", "nothing"], "got 'nothing'"), (["--num_images", "0"], "1 or more, got 0")]
)
def test_what_cannot_be_shown_is_refused(tmp_path, arguments, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path), *arguments])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_images_are_written_as_the_nearest_of_256_values():
    image = PATTERNS["zone_plates"].images(0, [0], 32)
    np.testing.assert_array_equal(to_bytes(image)[0], np.floor(image[0].permute(1, 2, 0).numpy() * 255 + 0.5))
