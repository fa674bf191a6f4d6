"""How does a shell know what can be typed? A script that completes commands, keys and the options of groups.

eval "$(structlin completion bash)"        in ~/.bashrc
eval "$(structlin completion zsh)"         in ~/.zshrc, after compinit
structlin completion fish | source         in ~/.config/fish/config.fish
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from structlin.command.main import COMMANDS
from structlin.errors import UserError, asks_help, suggest

SHELLS = ("bash", "zsh", "fish")

BASH = """\
_structlin() {{
    local line="${{COMP_LINE:0:COMP_POINT}}" word="${{COMP_LINE:0:COMP_POINT}}" list=""
    word="${{word##* }}"
    local rest="${{line#* }}"
    local command="${{rest%% *}}"
    if [ "$command" = "$word" ]; then list="{commands}"; else
        case "$command" in
{cases}
        esac
    fi
    COMPREPLY=($(compgen -W "$list" -- "$word"))
    # Bash breaks words at "=": what stands before it is typed already.
    if [[ "$word" == *=* && "$COMP_WORDBREAKS" == *=* ]]; then
        local before="${{word%"${{word##*=}}"}}"
        COMPREPLY=("${{COMPREPLY[@]#"$before"}}")
    fi
    [[ "${{COMPREPLY[0]}}" == *= ]] && compopt -o nospace
}}
complete -F _structlin structlin
"""
ZSH = """\
_structlin() {{
    local -a list
    if (( CURRENT == 2 )); then list=({commands}); else
        case "$words[2]" in
{cases}
        esac
    fi
    compadd -S '' -- $list
}}
compdef _structlin structlin
"""


def main(arguments: list[str]) -> int:
    """Print the script of a shell. UserError for an unknown one."""
    if asks_help(arguments):
        print(__doc__)
        return 0
    shell = arguments[0] if len(arguments) == 1 else ""
    if shell not in SHELLS:
        raise UserError(f"say which shell: structlin completion bash; {suggest(shell, SHELLS)}")
    print({"bash": bash, "zsh": zsh, "fish": fish}[shell](words()), end="")
    return 0


def words() -> dict[str, list[str]]:
    """Command -> what can follow it: key= for every key, and group=option where a group is chosen from a list."""
    from structlin.command import convert, explain, generate, help, speeds, status
    from structlin.config.compose import group_options
    from structlin.config.files import CONFIG_DIR
    from structlin.config.study import studies
    from structlin.data.__main__ import DEFAULTS
    from structlin.laws.choices import Choices
    from structlin.structure.families import ARGUMENTS

    def of_door(root: str) -> list[str]:
        keys = [f"{key}=" for key in help.defaults(root)]
        chosen = [f"{group}={option}" for group in help.groups_of(root) for option in group_options(group)]
        return [
            *keys,
            *chosen,
            *([f"study={name}" for name in studies(CONFIG_DIR / "study")] if root == "sweep" else []),
        ]

    laws = [f"{field.name}=" for field in fields(Choices)]
    shape = [*explain.LAYER, *explain.OTHERS, *ARGUMENTS, "picture"]
    return {
        "sweep": of_door("sweep"),
        "train": of_door("train"),
        "fit": laws,
        "figures": ["figure=", *laws],
        "report": laws,
        "status": [f"{key}=" for key in status.KEYS],
        "data": [f"{key}=" for key in DEFAULTS],
        "explain": [*(f"structure={name}" for name in group_options("structure")), *(f"{key}=" for key in shape)],
        "completion": list(SHELLS),
        "table": ["runs=", "out="],
        "generate": [f"{key}=" for key in generate.DEFAULTS],
        "convert": [*convert.ACTIONS, *(f"{key}=" for key in convert.DEFAULTS)],
        "speeds": [f"{key}=" for key in speeds.DEFAULTS],
        "sync": ["runs="],
        "demo": ["out="],
    }


def bash(known: Mapping[str, list[str]]) -> str:
    """For bash."""
    cases = "\n".join(f'            {name}) list="{" ".join(found)}" ;;' for name, found in known.items())
    return BASH.format(commands=" ".join(COMMANDS), cases=cases)


def zsh(known: Mapping[str, list[str]]) -> str:
    """For zsh."""
    cases = "\n".join(f"            {name}) list=({' '.join(found)}) ;;" for name, found in known.items())
    return ZSH.format(commands=" ".join(COMMANDS), cases=cases)


def fish(known: Mapping[str, list[str]]) -> str:
    """For fish."""
    lines = ["complete -c structlin -f"]
    for name, (_, said) in COMMANDS.items():
        lines.append(f"complete -c structlin -n __fish_use_subcommand -a {name} -d '{said.replace(chr(39), '')}'")
        lines.append(f"complete -c structlin -n '__fish_seen_subcommand_from {name}' -a '{' '.join(known[name])}'")
    return "\n".join(lines) + "\n"
