"""The report as a reader gets it: parsed, not matched by text."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from dreamcore.errors import RunError
from dreamcore.report import collect, write_report
from dreamcore.report.facts import facts
from dreamcore.report.style import STYLE
from dreamcore.track import MetricsFile, RunInfo

NASTY = 'a <script>alert("sks")</script> & \'mug\' <img src="http://x.example/y.png">'


class Page(HTMLParser):
    """The elements of a page with their attributes, and the text in them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.sections: dict[str, list[str]] = {}
        self.words: list[str] = []
        self.script = ""
        self._open: list[str] = []
        self._section = ""
        self.feed(html)
        self.close()
        assert self._open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.sections.setdefault(self._section, []).append(tag)
        if tag not in {"meta", "link", "img", "br"}:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "h2":
            self._section = data
        if self._open and self._open[-1] == "script":
            self.script += data
        elif self._open and self._open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def images_in(self, section: str) -> int:
        return self.sections.get(section, []).count("img")

    @property
    def text(self) -> str:
        return " ".join(self.words)


def picture(path: Path, colour: int, size: tuple[int, int] = (16, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (colour, 60, 90)).save(path)
    return path


def run_folder(folder: Path, *, updates: int = 40, config: Mapping[str, Any] | None = None) -> Path:
    """A finished run with 3 instance images, 14 class images, 2 images of each of 5 validations."""
    for k in range(3):
        picture(folder / "photos" / f"{k}.png", 10 * k)
    classes = [str(picture(folder / "classes" / f"{k}.png", k)) for k in range(14)]
    for step in reversed(range(0, updates + 1, 10)):
        for k in range(2):
            picture(folder / "samples" / f"step-{step:06}-{k}.png", 3 * step + k)
    metrics = MetricsFile()
    metrics.start(RunInfo(folder, updates, 1, {}, folder / "logs"))
    for step in range(1, updates + 1):
        record = {"step": step, "loss": 3.0, "loss_instance": 1.0, "loss_prior": 2.0, "lr": 1e-4, "seconds": 0.5}
        metrics.update(record | {"lr_text_encoder": 5e-5, "grad_norm": 1.0})
    for step, loss in ((10, 0.4), (20, 0.25), (30, 0.3)):
        metrics.scalars(step, {"validation_loss": loss})
    metrics.close("finished")
    for step in (12, 24):
        (folder / f"checkpoint-{step}").mkdir()
    settings = config or {
        "instance_prompt": "a photo of sks mug",
        "validation_prompt": NASTY,
        "max_train_steps": updates,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(settings)), encoding="utf-8")
    extras = {
        "instance_images": [f"photos/{k}.png" for k in range(3)],
        "class_images": classes,
        "timing": {"class_images": 75.0, "peak_memory": "1.2 GiB", "updates_per_second": 2, "in all, seconds": 90},
        "scores": {"subject": {"before": 0.03, "after": 0.8125}},
    }
    (folder / "report_data.json").write_text(json.dumps(extras))
    return folder


def page_of(folder: Path) -> Page:
    html, _ = write_report(folder)
    return Page(html.read_text(encoding="utf-8"))


def test_each_section_holds_its_pictures(tmp_path: Path) -> None:
    page = page_of(run_folder(tmp_path))
    assert page.images_in("The subject") == 3
    assert page.images_in("Before and after") == 2 * 2
    assert page.images_in("Along the way") == 5 * 2
    assert page.images_in("The class") == 12
    assert "14 class images; the first 12 are shown." in page.text
    assert len(page.all("svg")) == 3


def test_before_and_after_are_the_first_and_the_last_of_one_seed(tmp_path: Path) -> None:
    page = page_of(run_folder(tmp_path))
    red = [decoded(image["src"])[0, 0, 0] for image in page.all("img")][3:7]
    assert red == [0, 120, 1, 121]  # 3 · update + seed, at updates 0 and 40
    assert page.all("img")[4]["alt"] == f"{NASTY}: image 1, after 40 updates"


def test_pictures_along_the_way_come_in_the_order_of_their_updates(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    picture(folder / "samples" / "step-1000000-0.png", 250)
    page = page_of(folder)
    film = page.all("img")[3 + 2 : -(3 + 12)]
    assert [decoded(image["src"])[0, 0, 0] for image in film] == [0, 1, 30, 31, 60, 61, 90, 91, 120, 121, 250]
    assert page.text.index("before 10 20 30 40 1,000,000") > 0


def decoded(uri: str) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_nothing_is_loaded_and_nothing_runs_but_the_pages_own_script(tmp_path: Path) -> None:
    page = page_of(run_folder(tmp_path))
    tags = [tag for tag, _ in page.elements]
    assert not {*tags} & {"iframe", "object", "embed", "form", "base", "video", "audio", "a"}
    assert page.all("script") == [{}] and tags[-1] == "script"
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), f"{tag} {name}"
            if name in {"src", "href", "srcset", "data", "poster", "action"}:
                assert value.startswith("data:"), f"{tag} {name}={value[:60]}"
    style = re.sub(r"url\(#[\w-]+\)", "", STYLE)
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    hashed = base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{hashed}'"
    for reaching_out in ("http", "fetch", "XMLHttp", "import", "WebSocket", "Worker", "Beacon"):
        assert reaching_out not in page.script


def test_a_users_words_stay_words(tmp_path: Path) -> None:
    folder = tmp_path / "<b>run & co"
    folder.mkdir()
    config = {"instance_prompt": NASTY, "validation_prompt": NASTY, "seed": 7, NASTY: NASTY, "lora_layers": ["<i>"]}
    page = page_of(run_folder(folder, config=config))
    # header, words to use, the subject's, prompt of the pairs, the configuration's name and 3 values
    assert page.words.count(NASTY) == 8
    assert "<b>run & co" in page.words
    assert "<i>" in page.words
    assert not {"b", "a"} & {tag for tag, _ in page.elements} and page.all("script") == [{}]
    assert len(page.all("img")) == 3 + 4 + 10 + 3 + 12


def test_every_picture_and_chart_has_words(tmp_path: Path) -> None:
    page = page_of(run_folder(tmp_path))
    assert all(len(image["alt"]) > 5 for image in page.all("img"))
    identities = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identities) == len(set(identities))
    for chart in page.all("svg"):
        assert chart["role"] == "img"
        assert set(chart["aria-labelledby"].split()) <= set(identities)
    assert page.all("html") == [{"lang": "en"}]
    assert any(m.get("name") == "viewport" for m in page.all("meta"))


def test_figures_are_those_of_the_run(tmp_path: Path) -> None:
    text = page_of(run_folder(tmp_path)).text
    assert "40 of 40" in text
    assert "0.25 at update 20" in text
    assert "lowest: 0.25 at 20" in text
    assert "Nearest checkpoint to the lowest point: checkpoint-24." in text
    assert "subject: moving mean 1 at first, 1 at the end; class (prior): moving mean 2 at first, 2 at the end" in text
    assert "learning rate: 0.0001; text encoder: 5e-05" in text
    for words in (
        "all updates 20 s",
        "one update, median 0.5 s",
        "class images 1 min 15 s",
        "peak memory 1.2 GiB",
        "in all 1 min 30 s",
    ):
        assert words in text
    assert "updates per second 2" in text
    assert "subject · after 0.8125" in text


def test_the_final_loss_is_the_mean_of_the_last_tenth(tmp_path: Path) -> None:
    metrics = MetricsFile()
    metrics.start(RunInfo(tmp_path, 25, 1, {}, tmp_path))
    for step in range(1, 26):
        metrics.update({"step": step, "loss": float(step), "lr": 1e-4})
    assert "Loss, mean of the last tenth 24 " in page_of(tmp_path).text  # of 25 updates: 23, 24 and 25


def test_an_empty_folder_says_what_is_missing(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    assert page.all("img") == []
    assert page.all("svg") == []
    for words in ("config.yaml", "No metrics", "set validation_prompt", "No times", "which images were trained on"):
        assert words in page.text


def test_damaged_parts_are_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    (folder / "photos" / "1.png").write_bytes(b"no image")
    (folder / "photos" / "2.png").unlink()
    (folder / "samples" / "step-000020-1.png").unlink()
    (folder / "config.yaml").write_text("a: [")
    (folder / "metrics.jsonl").write_bytes((folder / "metrics.jsonl").read_bytes() + b'{"step": 41, "lo')
    page = page_of(folder)
    assert page.images_in("The subject") == 1
    assert page.text.count("Cannot be read.") == 2
    assert page.images_in("Along the way") == 9
    assert "Could not be read:" in page.text
    assert "40" in page.text


def test_values_of_another_kind_do_no_harm(tmp_path: Path) -> None:
    config = {"learning_rate": "fast", "with_prior_preservation": "x", "prior_loss_weight": [1], "validation_prompt": 3}
    folder = run_folder(tmp_path, config=config | {"max_train_steps": None, "use_lora": 1, "instance_prompt": {"a": 1}})
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": "low", "lr": [1]}\n{"step": 2, "loss": 0.5}\n')
    assert "Losses that were not finite, and leave gaps: 1." in page_of(folder).text


def test_extras_of_another_shape_are_left_out(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    for extras in ('{"instance_images": 3, "timing": [1], "validation_loss": [1, [2, null], [3]]}', "[]", "{", "\xff"):
        (folder / "report_data.json").write_text(extras, encoding="latin-1")
        assert page_of(folder).images_in("The subject") == 0


def test_held_out_losses_of_the_extras_join_those_of_the_file(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    (folder / "report_data.json").write_text(json.dumps({"validation_loss": [[35, 0.125]]}))
    assert "lowest: 0.125 at 35" in page_of(folder).text


def test_losses_that_are_not_finite_leave_gaps_and_are_counted(tmp_path: Path) -> None:
    metrics = MetricsFile()
    metrics.start(RunInfo(tmp_path, 9, 1, {}, tmp_path))
    for step in range(1, 10):
        loss = float("nan") if step in (4, 5) else 0.5
        metrics.update({"step": step, "loss": loss, "loss_instance": loss, "lr": 1e-4, "skipped": step == 4})
    page = page_of(tmp_path)
    assert "Losses that were not finite, and leave gaps: 2." in page.text
    assert "Updates skipped (fp16 overflow): 1." in page.text
    raw = page.all("path")[0]["d"]
    assert raw.count("M") == 2
    assert "nan" not in raw


def test_a_single_update_is_enough(tmp_path: Path) -> None:
    assert len(page_of(run_folder(tmp_path, updates=1)).all("svg")) == 3


def test_photographs_shrink_and_lose_the_cameras_notes(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    exif[0x0112] = 6  # the camera lay on its side
    noise = np.random.default_rng(0).integers(0, 256, (600, 900, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.jpg", exif=exif)
    (tmp_path / "report_data.json").write_text('{"instance_images": ["photo.jpg"]}')
    sizes = []
    for image in page_of(tmp_path).all("img"):
        assert image["src"].startswith("data:image/jpeg")
        sizes.append((image["width"], image["height"]))
        assert b"taken at home" not in base64.b64decode(image["src"].partition(",")[2])
    assert sizes == [("341", "512"), ("213", "320")]  # on top, and among the subject's


def test_contact_sheet_shows_the_subject_and_every_seed(tmp_path: Path) -> None:
    _, sheet = write_report(run_folder(tmp_path))
    with Image.open(sheet) as opened:
        pixels = np.asarray(opened.convert("RGB"))
    colours = {tuple(colour) for colour in np.unique(pixels.reshape(-1, 3), axis=0).tolist()}
    for red in (0, 10, 20, *(3 * step + k for step in (0, 10, 20, 30, 40) for k in (0, 1))):
        assert (red, 60, 90) in colours


def test_contact_sheet_of_nothing_is_still_a_picture(tmp_path: Path) -> None:
    _, sheet = write_report(tmp_path)
    with Image.open(sheet) as opened:
        assert opened.format == "PNG"


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_folder(tmp_path)
    before = write_report(folder)[0].read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    (folder / "report_data.json").unlink()
    with pytest.raises(RunError, match="writing the report to .*no space left"):
        write_report(folder)
    assert (folder / "report.html").read_bytes() == before


def test_only_the_two_files_are_written(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    written = set(write_report(folder))
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert {path for path in after if before.get(path) != after[path]} == written


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_text_has_enough_contrast_in_light_and_in_dark() -> None:
    themes = [dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", STYLE, re.S)]
    assert len(themes) == 2
    for theme in themes:
        for ground in ("paper", "panel"):
            for ink in ("ink", "soft", "instance", "prior", "warn"):
                light, dark = sorted((luminance(theme[ground]), luminance(theme[ink])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{ink} on {ground}: {theme[ink]} on {theme[ground]}"


def test_on_top_are_a_photograph_and_one_image_before_and_after(tmp_path: Path) -> None:
    page = page_of(run_folder(tmp_path))
    assert [decoded(image["src"])[0, 0, 0] for image in page.all("img")[:3]] == [0, 0, 120]
    assert page.text.index("After 40 updates") < page.text.index("Use it")
    (tmp_path / "samples" / "step-000000-0.png").unlink()
    (tmp_path / "samples" / "step-000000-1.png").unlink()
    assert "Before training" not in page_of(tmp_path).text


def test_words_command_files_and_warnings_are_there(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    (folder / "pytorch_lora_weights.safetensors").touch()
    extras = json.loads((folder / "report_data.json").read_text())
    (folder / "report_data.json").write_text(json.dumps(extras | {"warnings": ["a <b>small</b> photograph", "and 3"]}))
    page = page_of(folder)
    codes = {attributes["id"] for tag, attributes in page.elements if tag == "code" and "id" in attributes}
    assert codes == {"words-0", "generate"} == {button["data-copy"] for button in page.all("button")}
    assert all("hidden" in button for button in page.all("button")), "where no script runs, none is needed"
    assert f'dreambooth generate --lora {folder} --prompt "a photo of sks mug"' in page.words
    assert "pytorch_lora_weights.safetensors" in page.words and "the LoRA, for diffusers and dreambooth" in page.words
    assert "a <b>small</b> photograph" in page.words and page.sections["Warnings"].count("li") == 2
    assert "Warnings" not in page_of(run_folder(tmp_path / "another")).sections


def test_several_subjects_and_their_classes_are_under_their_own_words(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    extras = json.loads((folder / "report_data.json").read_text())
    subjects: list[dict[str, Any]] = [
        {"words": "a sks mug", "instance_images": 1, "class_prompt": "a mug", "class_images": 2},
        {"words": "a zwx fish", "instance_images": 2, "class_images": 0},
    ]
    (folder / "report_data.json").write_text(json.dumps(extras | {"subjects": subjects}))
    page = page_of(folder)
    assert [page.images_in(f"Subject {number}") for number in (1, 2)] == [1, 2]
    assert page.images_in("The class of subject 1") == 2
    text = page.text
    places = ["Words to use", "a sks mug", "a zwx fish", "Subject 1", "a sks mug", "The class of subject 1", "a mug"]
    at = 0
    for words in [*places, "Subject 2", "a zwx fish"]:
        at = text.index(words, at) + 1
    (folder / "report_data.json").write_text(
        json.dumps(extras | {"subjects": [{"words": 3, "instance_images": "x"}, 7]})
    )
    assert page_of(folder).images_in("Subject 2") == 3, "nobody's photographs are still shown"


def test_every_number_says_what_it_means(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    status = {"state": "finished", "written": "2026-03-01T12:30:00+00:00", "started": "2026-03-01T11:00:00+00:00"}
    status |= {"device": "NVIDIA X", "backend": "torch", "memory_bytes": 3 * 2**30, "version": "9.8.7"}
    (folder / "status.json").write_text(json.dumps(status))
    found = {fact.name: fact for fact in facts(collect(folder))}
    assert found["Device"].value == "NVIDIA X, by PyTorch" and found["Version"].value == "dreambooth 9.8.7"
    assert found["Memory, at most"].value == "3.00 GiB" and "2026-03-01" in found["Date"].value
    for name, fact in found.items():
        assert fact.meaning or not re.fullmatch(r"[\d.,e\-]+", fact.value), name
    assert all(fact.meaning in page_of(folder).text for fact in found.values())
