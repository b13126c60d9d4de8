"""Runs beside each other: what differs, which pictures are of one seed, and what cannot be compared."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import dreamcore
from dreamcore.cli.main import main
from dreamcore.errors import ConfigError
from dreamcore.report.comparison import compare_runs, same_seeds
from dreamcore.report.style import SERIES

from .test_report import NASTY, Page, picture, run_folder

SETTINGS: dict[str, Any] = {
    "instance_prompt": "a photo of sks mug", "validation_prompt": NASTY, "max_train_steps": 40, "learning_rate": 5e-6,
    "output_dir": "a",
}  # fmt: skip


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two runs that differ in one setting: images 0 and 1 of seeds 0 and 1."""
    one = run_folder(tmp_path / "out" / "one", config=SETTINGS)
    other = run_folder(
        tmp_path / "out" / "other", config=SETTINGS | {"learning_rate": 1e-4, "output_dir": "b", "rank": 4}
    )
    return [one, other]


def settings(run: Path, **changed: Any) -> None:
    found = yaml.safe_load((run / "config.yaml").read_text()) | changed
    (run / "config.yaml").write_text(yaml.safe_dump(found))


def evaluation(folder: Path, source: str, dino: float, **judge: str) -> Path:
    """As `dreambooth evaluate` leaves one."""
    folder.mkdir(parents=True)
    content = {
        "source": source,
        "settings": {"num_inference_steps": 30},
        "judge": {"name": "DINO", "sources": {"DINO": "sha256 1", **judge}},
        "subjects": [
            {
                "name": "sks mug",
                "measures": {"DINO": {"value": dino, "low": dino - 0.1, "high": dino + 0.1, "count": 4}},
                "pictures": [{"prompt": "a sks mug", "seed": 0}],
            }
        ],
    }
    (folder / "evaluation.json").write_text(json.dumps(content))
    return folder


def test_only_what_differs_is_shown(runs: list[Path], tmp_path: Path) -> None:
    found = dreamcore.compare(*runs, output=tmp_path / "page.html")
    assert found.differs == {"learning_rate": [5e-6, 1e-4], "rank": [None, 4]}
    assert found.warnings == []
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert found.page == tmp_path / "page.html"
    assert page.images_in("The same seeds, side by side") == 2 * 3, "before, and one of each run"
    assert page.images_in("Along the way") == 2 * 5
    assert all(attributes["src"].startswith("data:image/") for attributes in page.all("img"))
    assert not page.all("script") and "alert" in page.text, "a user's words stay words"
    assert "max_train_steps" not in page.text


def test_the_page_loads_nothing_and_says_its_lines(runs: list[Path], tmp_path: Path) -> None:
    html = Path(str(dreamcore.compare(*runs, output=tmp_path).page)).read_text(encoding="utf-8")
    assert (tmp_path / "comparison.html").is_file()
    page = Page(html)
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    identities = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identities) == len(set(identities)), "each chart's words are its own"
    assert "A: 3 at first, 3 at the end; B: 3 at first, 3 at the end" in page.text
    assert dreamcore.compare(*runs, output=tmp_path).page == tmp_path / "comparison-2.html", "nothing is overwritten"
    with pytest.raises(ConfigError, match="is there already"):
        dreamcore.compare(*runs, output=tmp_path / "comparison.html")


def test_lines_are_seen_on_both_papers() -> None:
    """Contrast (WCAG 2.1, 1.4.11) of every run's line: at least 3 : 1."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for light, dark, _ in SERIES:
        for colour, paper in ((light, "#ffffff"), (dark, "#14171b")):
            high, low = sorted((luminance(colour), luminance(paper)), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 3, colour
    assert len({dashes for _, _, dashes in SERIES}) == len(SERIES), "told apart without colours, too"


def test_pictures_of_one_seed_stand_side_by_side(runs: list[Path]) -> None:
    settings(runs[1], seed=1)  # its first image is of the other's second seed
    found = compare_runs(runs)
    last = [run / "samples" for run in runs]
    assert same_seeds(found.runs) == [(1, [last[0] / "step-000040-1.png", last[1] / "step-000040-0.png"])]
    (warning,) = [words for words in found.warnings if "of the pictures' seeds" in words]
    assert warning == "the seeds differ (A: –; B: 1): 1 of the pictures' seeds are in all runs"
    settings(runs[1], seed=9)
    assert same_seeds(compare_runs(runs).runs) == []
    settings(runs[1], seed=1, validation_images=["a.png"])
    settings(runs[0], validation_images=["a.png"])
    assert [seed for seed, _ in same_seeds(compare_runs(runs).runs)] == [None, None], "by the image they begin with"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"validation_prompt": "a mug"}, "the prompts differ"),
        ({"validation_scheduler": "ddim"}, "the samplers differ (A: –; B: ddim)"),
        ({"validation_guidance_scale": 3.0}, "the strengths of guidance differ"),
        ({"pretrained_model_name_or_path": "other"}, "the base models differ"),
        ({"validation_data_dir": "there"}, "losses on held-out photographs cannot be compared"),
        ({"seed": 3}, "losses on held-out photographs cannot be compared"),
    ],
)
def test_what_cannot_be_compared_is_said(changed: dict[str, Any], said: str, runs: list[Path]) -> None:
    settings(runs[1], **changed)
    assert said in "\n".join(compare_runs(runs).warnings)


def test_evaluations_come_with_their_intervals(runs: list[Path], tmp_path: Path) -> None:
    evaluation(runs[0] / "evaluation", "elsewhere", 0.5)
    given = evaluation(tmp_path / "second", str(runs[1]), 0.25)
    found = compare_runs(runs, [given])
    assert [str(run.evaluated.scores["DINO"]) for run in found.runs if run.evaluated] == [
        "0.5 [0.4, 0.6]",
        "0.25 [0.15, 0.35]",
    ]
    assert found.as_dict()["runs"][1]["evaluation"]["measures"]["DINO"]["high"] == pytest.approx(0.35)
    other = evaluation(tmp_path / "third", str(runs[1]), 0.25, more="sha256 2")
    assert "the evaluations' judges differ: their scores cannot be compared" in compare_runs(runs, [other]).warnings
    stray = evaluation(tmp_path / "stray", "nowhere", 0.1)
    for folder, said in ((stray, "is of nowhere, which is none of the runs"), (tmp_path, "no evaluation.json there")):
        with pytest.raises(ConfigError, match=said):
            compare_runs(runs, [folder])


def test_the_command(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "out/one", "out/other"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "comparison.html" and (tmp_path / "comparison.html").is_file()
    assert re.split(r"  +", next(line for line in lines if line.startswith("rank"))) == ["rank", "–", "4"]
    (tmp_path / "comparison.html").unlink()
    assert main(["compare", "out/one", "out/other", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["differs"] == {"learning_rate": [5e-6, 1e-4], "rank": [None, 4]}
    assert said["runs"][0]["loss"] == 3.0 and said["same_seeds"][0]["seed"] == 0
    assert said["runs"][0]["validation"][1] == {"step": 20, "validation_loss": 0.25}
    assert not (tmp_path / "comparison.html").exists()
    for words, wrong in ((["out/one"], "needs two runs or more"), (["out/one", "out/../out/one"], "is given twice")):
        assert main(["compare", *words]) == 2
        assert wrong in capsys.readouterr().err


def test_damaged_and_empty_runs_leave_gaps(runs: list[Path], tmp_path: Path) -> None:
    (runs[1] / "config.yaml").write_text(":")
    picture(runs[1] / "samples" / "step-000040-0.png", 3).write_bytes(b"")
    (tmp_path / "empty").mkdir()
    found = dreamcore.compare(*runs, output=tmp_path / "page.html")
    assert any(words.startswith("B: ") for words in found.warnings)
    Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    with pytest.raises(ConfigError, match="holds no run"):
        dreamcore.compare(runs[0], tmp_path / "empty")
