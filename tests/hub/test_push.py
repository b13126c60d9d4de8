"""Publishing a run: Hugging Face's own client against a small Hub that HF_ENDPOINT names."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamcore.errors import ConfigError
from dreamcore.hub.push import check_access, repository_name
from dreamcore.hub.selection import SAMPLE
from dreamcore.io.names import SAMPLES
from dreamcore.runs.folder import IMAGE_NAMES

from ..support.hub_server import Repository, UploadHub, run_with

pytest.importorskip("huggingface_hub", reason="what is tested is what its client sends")

TOKEN = "hf_nobodyIsToSeeThis"
CARD = "---\ntags: [text-to-image]\n---\n\n# A card of the run in memory\n"
PROGRAM = """
import os, sys, time, traceback
os.dup2(1, 2)
time.sleep = lambda seconds: None  # between the client's attempts
from pathlib import Path
from dreamcore.errors import ConfigError, RunError
from dreamcore.hub.push import check_access, push
what, folder, repository, private, card = sys.argv[1:]
try:
    if what == "check":
        print("access to", check_access(Path(folder), repository or None, private=bool(private)))
    else:
        print("page:", push(Path(folder), repository or None, private=bool(private), card=lambda name: card, say=print))
except (ConfigError, RunError) as error:
    traceback.print_exc()
    print(f"{type(error).__name__}: {error}")
"""
COMPONENTS = {
    "unet": ["diffusers", "UNet2DConditionModel"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "vae": ["diffusers", "AutoencoderKL"],
    "safety_checker": [None, None],
}
MODEL = (
    *("unet/config.json", "unet/diffusion_pytorch_model-00001-of-00002.safetensors"),
    *("unet/diffusion_pytorch_model-00002-of-00002.safetensors", "unet/diffusion_pytorch_model.safetensors.index.json"),
    *("text_encoder/config.json", "text_encoder/model.safetensors", "tokenizer/vocab.json", "tokenizer/merges.txt"),
    *("tokenizer/tokenizer_config.json", "tokenizer/spiece.model", "scheduler/scheduler_config.json"),
    *("vae/config.json", "vae/diffusion_pytorch_model.safetensors"),
)
LORA = ("pytorch_lora_weights.safetensors", "paddle_lora_weights.safetensors", "my-dog.safetensors")
LAST_IMAGES = ("samples/step-000400-0.png", "samples/step-000400-1.png")
NOT_FOR_OTHERS = (
    *("report.html", "report.png", "report_data.json", "log.txt", "config.yaml", "metrics.jsonl", "validation.jsonl"),
    *("status.json", "samples/asked-000400-1-0.png", ".dreambooth/requests/1-2.json"),
    *("checkpoint-400/state.json", "checkpoint-400/unet/diffusion_pytorch_model.safetensors"),
    *("checkpoint-400/pytorch_lora_weights.safetensors", "checkpoint-400/optimizer.safetensors"),
    *("samples/step-000000-0.png", "samples/step-000200-0.png", "samples/my own.png", "samples/notes.txt"),
    *("subject/00.png", "class_images/00000.png", "class_images/class_images.json", "logs/events.out.tfevents"),
    *(".dreambooth/manifest.json", ".dreambooth/final/unet/config.json", ".dreambooth/replaced-1/model_index.json"),
    *("dog.jpg", "dog.txt", "step-000400-0.png", "unet/dog.png", "unet/secret.json", "unet/.config.json.7.tmp"),
    *("unet/diffusion_pytorch_model.bin", "unet/optimizer.safetensors", "unet/deep/config.json", "README.md"),
    *("my photographs/config.json", "my photographs/model.safetensors", ".env", "vae/dog.safetensors"),
)


def write_run(folder: Path, *, lora: bool = False) -> Path:
    """A folder in which is everything that a run writes, and what its owner keeps there."""
    for name in (*NOT_FOR_OTHERS, *LAST_IMAGES, *(LORA if lora else MODEL)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(f"contents of {name}".encode())
    if not lora:
        (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"} | COMPONENTS))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture
def hub() -> Iterator[UploadHub]:
    hub = UploadHub(TOKEN, organisations=("our-lab",))
    yield hub
    hub.close()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    """A finished run, of which publishing is to change nothing."""
    folder = write_run(tmp_path / "my-dog")
    before = contents(folder)
    yield folder
    assert contents(folder) == before


def published(
    hub: UploadHub | str, run: Path, repository: str = "", *, what: str = "push", private: bool = False, **other: str
) -> str:
    """All that is said by a process that publishes a run; nobody is to find the token in it, nor in what it writes."""
    home = run.parent / "home"
    endpoint = hub if isinstance(hub, str) else hub.endpoint
    environment = {"HF_TOKEN": TOKEN, "HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1"} | other
    arguments = (PROGRAM, what, str(run), repository, "yes" if private else "", CARD)
    said = run_with(endpoint, home, *arguments, **environment)
    token = environment["HF_TOKEN"]
    if token:
        assert token not in said
        written = [f for f in run.parent.rglob("*") if f.is_file() and token.encode() in f.read_bytes()]
        assert written == []
    return said


def error_in(said: str) -> str:
    return said.splitlines()[-1]


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_exactly_the_model_the_card_and_the_last_images_go_up(hub: UploadHub, tmp_path: Path, lora: bool) -> None:
    run = write_run(tmp_path / "my-dog", lora=lora)
    before = contents(run)
    said = published(hub, run)
    assert said.endswith(f"published: {hub.endpoint}/me/my-dog\npage: {hub.endpoint}/me/my-dog")
    expected = {name: before[name] for name in (*(LORA if lora else ("model_index.json", *MODEL)), *LAST_IMAGES)}
    there = hub.repositories["me/my-dog"]
    assert there.files == expected | {"README.md": CARD.encode()}
    assert len(there.commits) == 1 and not there.private
    assert contents(run) == before


def test_what_goes_up_a_second_time(hub: UploadHub, run: Path) -> None:
    published(hub, run)
    there = hub.repositories["me/my-dog"]
    first, sent = dict(there.files), list(hub.puts)
    assert "published" in published(hub, run, "me/my-dog")
    assert (there.files, hub.puts, len(there.commits)) == (first, sent, 1), "nothing is new"

    left = {"samples/step-000300-0.png": b"", "vae/diffusion_pytorch_model.fp16.safetensors": b""}
    kept = {"notes.md": b"my own", ".gitattributes": b"", "samples/notes.txt": b"", "vae/README.md": b""}
    there.files |= left | kept | {LORA[0]: b"another model"}
    published(hub, run)
    assert there.files == first | kept | {LORA[0]: b"another model"}
    assert len(there.commits) == 2


def test_who_sees_it(hub: UploadHub, run: Path) -> None:
    published(hub, run, "hidden", private=True)
    assert hub.repositories["me/hidden"].private
    published(hub, run, "me/hidden")
    assert hub.repositories["me/hidden"].private, "what is private stays so"
    published(hub, run, "our-lab/dog")
    assert not hub.repositories["our-lab/dog"].private
    for what, kind in (("check", "ConfigError"), ("push", "PushError")):
        said = published(hub, run, "our-lab/dog", what=what, private=True)
        assert error_in(said).startswith(f"{kind}: hub_private_repo: our-lab/dog is on the Hub already, and public")
    assert len(hub.repositories["our-lab/dog"].commits) == 1


def test_an_upload_that_breaks_off_is_taken_up_again(hub: UploadHub, run: Path) -> None:
    hub.breaks_at = 3
    said = error_in(published(hub, run))
    assert said.startswith("PushError: push_to_hub: me/my-dog: the Hub cannot be reached, or the line broke (")
    assert said.endswith(f"The finished model is whole, in {run}; to publish it, give the command again")
    there = hub.repositories["me/my-dog"]
    assert there.files == {} and there.commits == [], "a page never shows half a model"
    assert len(hub.puts) == 2
    hub.breaks_at = None
    assert "published" in published(hub, run)
    large = {hashlib.sha256(data).hexdigest() for name, data in there.files.items() if data in hub.objects.values()}
    assert sorted(hub.puts) == sorted(large), "what had arrived is not sent again"

    there.files, there.commits = {}, []
    hub.loses_commit = True
    assert error_in(published(hub, run)).startswith("PushError: ")
    assert "published" in published(hub, run)
    assert len(there.commits) == 1


def test_a_run_is_refused_before_it_begins(hub: UploadHub, run: Path) -> None:
    assert published(hub, run, what="check") == "access to me/my-dog"
    assert published(hub, run, "me/my-dog", what="check") == "access to me/my-dog"
    assert hub.repositories["me/my-dog"] == Repository(False), "empty until there is a model"
    hub.repositories["them/dog"] = Repository(False)
    for name in ("them/dog", "them/new"):
        said = error_in(published(hub, run, name, what="check"))
        assert said.startswith(
            f"ConfigError: hub_model_id: {name}: me, whose token this is, may not write there; give me/"
        )
    hub.read_only = True
    for name in ("me/my-dog", "me/new"):
        said = error_in(published(hub, run, name, what="check"))
        assert said.startswith(f"ConfigError: push_to_hub: the token in HF_TOKEN may not write to {name}")
    assert sorted(hub.repositories) == ["me/my-dog", "them/dog"]


@pytest.mark.parametrize("token", ["", "hf_ofSomebodyElse", "hf_with\x01odd", "hf_with\u2026odd"])
def test_tokens_that_do_not_serve(hub: UploadHub, run: Path, token: str) -> None:
    expected = {
        "": "push_to_hub: no token of the Hub; set HF_TOKEN to a token with write access",
        "hf_ofSomebodyElse": "push_to_hub: the token in HF_TOKEN is not one that the Hub knows",
    }.get(token, "push_to_hub: the token in HF_TOKEN holds characters that no token has")
    assert error_in(published(hub, run, what="check", HF_TOKEN=token)).startswith(f"ConfigError: {expected}")
    assert error_in(published(hub, run, HF_TOKEN=token)).startswith(f"PushError: {expected}")
    assert hub.repositories == {}


def test_the_token_of_a_login_serves(hub: UploadHub, run: Path) -> None:
    home = run.parent / "home"
    home.mkdir()
    (home / "token").write_text(TOKEN)
    assert published(hub, run, what="check", HF_TOKEN="") == "access to me/my-dog"
    (home / "token").write_text("hf_ofSomebodyElse")
    assert "the token that was logged in with is not one that the Hub knows" in published(
        hub, run, what="check", HF_TOKEN=""
    )


def test_without_a_network(hub: UploadHub, run: Path) -> None:
    closed = "http://127.0.0.1:9"
    assert error_in(published(closed, run, what="check")).startswith(
        "ConfigError: push_to_hub: my-dog: the Hub cannot be reached"
    )
    assert error_in(published(closed, run)).startswith("PushError: push_to_hub: my-dog: the Hub cannot be reached")
    said = published(hub, run, what="check", HF_HUB_OFFLINE="1")
    assert error_in(said) == "ConfigError: push_to_hub: HF_HUB_OFFLINE is set; unset it, or leave push_to_hub out"


def test_without_the_client(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match="push_to_hub: huggingface_hub is not installed"):
        check_access(run, None, private=False)


def test_the_pattern_of_images_is_that_of_runs() -> None:
    """A validation's: those that somebody has asked for besides are not published."""
    of_runs, _, asked_for = IMAGE_NAMES[SAMPLES].pattern.partition("|")
    assert SAMPLE.pattern.replace("(", "").replace(")", "") == of_runs
    assert asked_for.startswith("asked")


NAMES = ("dog", "a", "_", "d.o_g-1", "me/dog", "-dog", "dog-", ".dog", "dog.", "d--g", "d..g", "dog.git", "my dog")
MORE_NAMES = ("a/b/c", "/dog", "me/", "me/-dog", "-me/dog", "m--e/dog", "me/dog.git", "x" * 96, "x" * 97, "~/dog")


@pytest.mark.parametrize("name", [*NAMES, *MORE_NAMES])
def test_names_are_those_that_the_client_takes(name: str) -> None:
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
        right = True
    except ValueError:
        right = False
    if right:
        assert repository_name(Path(), name) == name
        assert repository_name(Path("out") / name.rpartition("/")[2], None) == name.rpartition("/")[2]
    else:
        with pytest.raises(ConfigError, match="hub_model_id: .* is no name for a repository"):
            repository_name(Path(), name)


def test_what_a_wrong_name_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="hub_model_id: me/hündchen is no name .* give OWNER/NAME"):  # to all clients
        repository_name(tmp_path, "me/hündchen")
    with pytest.raises(ConfigError, match="push_to_hub: the folder's name, 'my dog', is no name .* give hub_model_id"):
        repository_name(tmp_path / "my dog", None)
