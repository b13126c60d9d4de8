"""A command that is told is what a shell makes of it."""

from __future__ import annotations

import subprocess

from dreamcore.io.system import shell_line

ODD = [
    "a b",
    "it's",
    "$HOME",
    "`id`",
    'a "b"',
    "x!",
    "",
    "\\",
    "\\\\n",
    "*",
    "~",
    "#",
    "狗 é",
    "a\nb",
    ";&|<>()",
    "-x",
    "a=b",
]


def test_a_shell_reads_the_words_that_were_meant() -> None:
    said = subprocess.run(
        ["sh", "-c", shell_line(["printf", "%s\\0", *ODD])], capture_output=True, text=True, check=True
    )
    assert said.stdout.split("\0")[:-1] == ODD


def test_a_prompt_stands_between_double_quotes_which_every_systems_shell_has() -> None:
    assert shell_line(["dreambooth", "--prompt", "a sks dog"]) == 'dreambooth --prompt "a sks dog"'
