"""Completion scripts: what `completion.table` knows, as bash, zsh and fish read it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping

from .command import Completed, Flag

WIDEST = 70
"""Characters of a description."""


def bash(table: Mapping[str, Completed]) -> str:
    """For bash, 3.2 too, which is macOS's."""
    cases = "\n".join(_bash_case(name, one) for name, one in table.items())
    return f"""\
# bash completion of dreambooth, written by `dreambooth completion bash`
_dreambooth() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} IFS=$' \\t\\n'
    local command=${{COMP_WORDS[1]}} flags= values= words= i
    COMPREPLY=()
    if [[ $cur == = ]]; then
        cur=
    elif [[ $prev == = && $COMP_CWORD -ge 3 ]]; then
        prev=${{COMP_WORDS[COMP_CWORD-2]}}
    fi
    if [[ $COMP_CWORD -eq 1 ]]; then
        COMPREPLY=($(compgen -W "{" ".join(_single(table))} help --help --version" -- "$cur"))
        return
    fi
    for ((i = 2; i < COMP_CWORD; i++)); do
        case "$command ${{COMP_WORDS[i]}}" in
            {"|".join(f'"{name}"' for name in table if " " in name)}) command="$command ${{COMP_WORDS[i]}}" ;;
            "launch train") command=train ;;
        esac
    done
    if [[ $cur == --* ]]; then
        cur=${{cur#--}}
        cur=--${{cur//-/_}}
    fi
    [[ $prev == --* ]] && prev=${{prev#--}} || prev=
    prev=${{prev//-/_}}
    case $command in
{cases}
        help) words="{" ".join(_single(table))}" ;;
    esac
    if [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$flags" -- "$cur"))
        return
    fi
    values=${{values:-$words}}
    COMPREPLY=($(compgen -W "${{values//@*/}}" -- "$cur"))
    IFS=$'\\n'
    case $values in
        *@folder) COMPREPLY+=($(compgen -d -- "$cur")); compopt -o filenames 2>/dev/null ;;
        *@path) COMPREPLY+=($(compgen -f -- "$cur")); compopt -o filenames 2>/dev/null ;;
    esac
}}
complete -F _dreambooth dreambooth
"""


def _bash_case(name: str, one: Completed) -> str:
    lines = [f'        "{name}")', f'            flags="{" ".join(f"--{flag.name}" for flag in one.flags)}"']
    lines += [f'            words="{_kind(one.takes)}"', "            case $prev in"]
    lines += [f'                {"|".join(names)}) values="{kind}" ;;' for kind, names in _by_kind(one.flags).items()]
    return "\n".join([*lines, "            esac ;;"])


def _by_kind(flags: Iterable[Flag]) -> dict[str, list[str]]:
    """What follows -> the flags that it follows."""
    found = dict[str, list[str]]()
    for flag in flags:
        if flag.takes != "nothing":
            found.setdefault(_kind(flag), []).append(flag.name)
    return found


def _kind(flag: Flag) -> str:
    """The words that follow, and @folder, @path, or @text for what nobody can know."""
    at = "" if flag.takes in ("words", "nothing") else f"@{flag.takes}"
    return " ".join([*flag.words, *([at] if at else [])])


def zsh(table: Mapping[str, Completed]) -> str:
    """For zsh, sourced or as a file `_dreambooth` of $fpath."""
    commands = "\n".join(f"        {_quoted(f'{name}:{_short(table[name].about)}')}" for name in _single(table))
    cases = "\n".join(_zsh_case(name, one) for name, one in table.items())
    pairs = " | ".join(f'"{name}"' for name in table if " " in name)
    return f"""\
#compdef dreambooth
# zsh completion of dreambooth, written by `dreambooth completion zsh`
_dreambooth() {{
    local name=${{words[2]}} before=${{words[CURRENT-1]}} values= own= word
    local -a flags list
    list=(
{commands}
    )
    if (( CURRENT == 2 )); then
        _describe -t commands command list
        return
    fi
    for word in ${{words[3,CURRENT-1]}}; do
        case "$name $word" in
            ({pairs}) name="$name $word" ;;
            ("launch train") name=train ;;
        esac
    done
    if [[ $PREFIX == --*=* ]]; then
        before=${{PREFIX%%=*}}
        compset -P '*='
    fi
    [[ $before == --* ]] && before=${{before#--}} || before=
    before=${{before//-/_}}
    case $name in
{cases}
        (help) _describe -t commands command list; return ;;
    esac
    if [[ $PREFIX == -* ]]; then
        _describe -o -t flags flag flags
        return
    fi
    values=${{values:-$own}}
    local -a listed=(${{(s: :)${{values%%@*}}}})
    (( $#listed )) && compadd -a listed
    case $values in
        (*@folder) _files -/ ;;
        (*@path) _files ;;
    esac
    return 0
}}
if [[ ${{funcstack[1]}} == _dreambooth ]]; then
    _dreambooth "$@"
else
    compdef _dreambooth dreambooth
fi
"""


def _zsh_case(name: str, one: Completed) -> str:
    flags = "\n".join(f"                {_quoted(f'--{flag.name}:{_short(flag.about)}')}" for flag in one.flags)
    lines = [
        f'        ("{name}")',
        "            flags=(",
        flags,
        "            )",
        f'            own="{_kind(one.takes)}"',
    ]
    lines += ["            case $before in"]
    lines += [f'                ({"|".join(names)}) values="{kind}" ;;' for kind, names in _by_kind(one.flags).items()]
    return "\n".join([*lines, "            esac ;;"])


def fish(table: Mapping[str, Completed]) -> str:
    """For fish, 3 and later."""
    pairs = " ".join(f"'{name}'" for name in table if " " in name)
    lines = [
        "# fish completion of dreambooth, written by `dreambooth completion fish`",
        "function __dreambooth_is",
        "    set -l typed (commandline -opc)",
        "    set -l command $typed[2]",
        '    test "$command" = launch; and contains -- train $typed; and set command train',
        f'    contains -- "$command $typed[3]" {pairs}; and set command "$command $typed[3]"',
        '    test "$command" = "$argv"',
        "end",
        "complete -c dreambooth -f",
    ]
    lines.append(f"complete -c dreambooth -n '__dreambooth_is help' -a '{' '.join(_single(table))}'")
    for name in _single(table):
        about = _quoted(_short(table[name].about))
        lines.append(f"complete -c dreambooth -n __dreambooth_is -a {name} -d {about}")
    for name, one in table.items():
        where = f"complete -c dreambooth -n '__dreambooth_is {name}'"
        lines += [f"{where} {_fish_takes(one.takes, '')}"] if one.takes.takes != "text" else []
        for flag in one.flags:
            lines.append(f"{where} -l {flag.name} {_fish_takes(flag, _short(flag.about))}".rstrip())
    return "\n".join([*lines, ""])


def _fish_takes(flag: Flag, about: str) -> str:
    said = f"-d {_quoted(about)}" if about else ""
    words = f"-a {_quoted(' '.join(flag.words))}" if flag.words else ""
    argument = "-r" if flag.name else ""
    forms = {
        "nothing": "",
        "text": "-x",
        "words": f"{'-x' if flag.name else ''} {words}",
        "folder": f"{'-x' if flag.name else ''} -a '(__fish_complete_directories)'",
        "path": f"{argument} -F {words}",
    }
    return " ".join(f"{forms[flag.takes]} {said}".split(" ")).strip()


def _single(table: Mapping[str, Completed]) -> Iterator[str]:
    """The commands of one word."""
    return (name for name in table if " " not in name)


def _short(text: str) -> str:
    return textwrap.shorten(text, WIDEST, placeholder="…").rstrip(".") if text else ""


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "’") + "'"
