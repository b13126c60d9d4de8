"""Wherever inputs lie, and whatever the output folder holds: every file that no run has written stays as it is."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import chdir, suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from PIL import Image

import dreamcore
from dreamcore.errors import ConfigError, RunError
from dreamcore.io.names import RECORDS
from dreamcore.tinyworld.__main__ import write_subject

from ..support.stub_runs import STATES, contents, put_into_state, train

PLACES = (
    *("photos", "above", ".", "out", "out/mine", "out/samples", "out/subject", "out/checkpoint-4", "out/checkpoint-9"),
    *("out/unet", "out/vae", "out/class_images", "out/logs", f"out/{RECORDS}", f"out/{RECORDS}/replaced-1"),
    f"out/{RECORDS}/final",
)
NAMES = ("dog.png", "step-000000-0.png", "00000.png", "report.png", "0.png", "00.png", "data-sheet.png")
ROLES = ("instance_data_dir", "validation_data_dir", "class_data_dir", "latent_cache_dir")
COMMANDS: dict[str, dict[str, Any]] = {
    "train": {},
    "replace": {"overwrite_output_dir": True},
    "resume": {"resume_from_checkpoint": "latest"},
    "resume or replace": {"resume_from_checkpoint": "latest", "overwrite_output_dir": True},
    "longer": {"resume_from_checkpoint": "latest", "max_train_steps": 6, "checkpoints_total_limit": 1},
    "replace, with sub-folders": {"overwrite_output_dir": True, "sub_folders": True},
}


class World:
    """A folder with an output folder in some state, a model and inputs anywhere."""

    def __init__(self, root: Path, finished: Path, state: str) -> None:
        self.root, self.output = root, root / "out"
        if state != "none":
            shutil.copytree(finished, self.output)
            put_into_state(self.output, state)
        self.ours = contents(root)

    def lay(self, place: str, name: str, shade: int) -> Path:
        """Put an image somewhere, where nothing has its name; returns its folder."""
        folder = self.root / place
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / name).exists():
            Image.new("RGB", (64, 64), (shade, 90, 160)).save(folder / name)
        return folder

    def named(self, folder: Path, way: str) -> str:
        """A folder's name as a user may give it."""
        if way == "link":
            link = Path(tempfile.mkdtemp(dir=self.root, prefix="links-")) / "link"
            link.symlink_to(folder, target_is_directory=True)
            return str(link)
        return os.path.relpath(folder, self.root) if way == "relative" else str(folder)


@settings(
    max_examples=80,
    deadline=None,
    phases=[
        Phase.explicit,
        Phase.reuse,
        Phase.generate,
    ],  # what an example did is said below; making it smaller is slow
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_what_is_not_ours_stays_as_it_is(data: st.DataObject, stub_model: Path, finished: Path) -> None:
    draw, seldom = data.draw, st.sampled_from([False, False, True])
    with tempfile.TemporaryDirectory() as name:
        state, command = draw(st.sampled_from(STATES)), draw(st.sampled_from([*COMMANDS, "data", "generate", "draw"]))
        world = World(Path(name).resolve(), finished, state)
        given_settings: dict[str, Any] = {}
        for number, role in enumerate(ROLES):
            if role == "instance_data_dir" or draw(seldom):
                place = draw(st.sampled_from(PLACES if draw(seldom) else PLACES[:2]))
                folder = world.lay(place, draw(st.sampled_from(NAMES)), 10 * number)
                given_settings[role] = world.named(folder, draw(st.sampled_from(["absolute", "relative", "link"])))
        model = stub_model
        if draw(seldom):
            model = world.root / draw(st.sampled_from(["model", "out", "out/model", "out/samples/model"]))
            shutil.copytree(stub_model, model, dirs_exist_ok=True, copy_function=copy_where_free)
        if draw(seldom):  # and one that no setting names
            world.lay(draw(st.sampled_from(PLACES[:11])), draw(st.sampled_from(NAMES)), 200)
        theirs = {name: raw for name, raw in contents(world.root).items() if name not in world.ours}
        output = world.named(world.output, draw(st.sampled_from(["absolute", "relative"])))
        outcome = "done"
        with chdir(world.root):
            try:
                run_command(command, model, output, given_settings)
            except (ConfigError, RunError) as error:
                outcome = "refused" if isinstance(error, ConfigError) else "stopped"
        event(f"{command}: {outcome}")
        left = contents(world.root)
        assert {n for n in theirs if left.get(n) != theirs[n]} == set(), (state, command, given_settings)
        if outcome == "refused":
            assert {n for n, raw in world.ours.items() if left.get(n) != raw} == set(), (state, command, given_settings)


def copy_where_free(source: str, target: str) -> None:
    if not Path(target).exists():
        shutil.copyfile(source, target)


def run_command(command: str, model: Path, output: str, given: dict[str, Any]) -> None:
    if command in COMMANDS:
        prior = {"with_prior_preservation": True, "class_prompt": "a mug", "num_class_images": 2}
        more = prior if "class_data_dir" in given else {}
        train(model, Path(given["instance_data_dir"]), output, **{**given, **more, **COMMANDS[command]})
    elif command == "data":
        folders = {name: given[name] for name in ("instance_data_dir", "validation_data_dir") if name in given}
        dreamcore.data_report(**folders, sheet=f"{given['instance_data_dir']}/../data-sheet.png")
    elif command == "generate":
        dreamcore.generate(
            pretrained_model_name_or_path=str(model),
            prompt="a mug",
            num_images=2,
            output_dir=given["instance_data_dir"],
        )
    else:
        write_subject(Path(given["instance_data_dir"]))


def test_the_states_are_what_they_say(stub_model: Path, drawn: Path, finished: Path, tmp_path: Path) -> None:
    """The property above would hold of a library that refuses everything."""
    done = set()
    for state in STATES:
        for command, more in COMMANDS.items():
            folder = tmp_path / f"{state}-{command}"
            if state != "none":
                shutil.copytree(finished, folder)
                put_into_state(folder, state)
            with suppress(ConfigError):
                train(stub_model, drawn, folder, **{"sub_folders": None, **more})
                done.add((state, command))
    assert {s for s, c in done if c == "train"} == {"none"}
    assert {s for s, c in done if c == "replace"} == {"none", "finished", "stopped", "damaged"}
    assert {s for s, c in done if c == "longer"} == set(STATES) - {"damaged"}
