"""``lockstep strategies`` and ``lockstep features``: what there is to run, and what it reads."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.commands.options import Config, Json, Profile, Rules, Sets

if TYPE_CHECKING:
    from core.strategy import Feature, Strategy

STRATEGIES_EPILOG = "Example: lockstep strategies trend"
FEATURES_EPILOG = "Example: lockstep features rsi --json"
Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="Everything about this one.")]


def strategies(
    name: Name = None,
    rules: Rules = None,
    profile: Profile = None,
    config: Config = None,
    set_: Sets = None,
    json: Json = False,
) -> None:
    """List the strategies, or tell all about one."""
    from core.errors import UnknownName
    from daemon.commands.choices import Choices, read_settings
    from daemon.commands.shelf import open_shelf
    from daemon.console import write_json

    choices = Choices(profile=profile, config=config, rules=rules or (), sets=set_ or ())
    shelf = open_shelf(read_settings(choices))
    found = shelf.everything()
    for label, stanza in shelf.resolved.settings.strategies.items():
        if stanza.rules:
            found[label] = shelf.strategy(label)
    if name is not None and name not in found:
        raise UnknownName("strategy", name, found)
    chosen = found if name is None else {name: found[name]}
    files = {key: str(path) for key, path in shelf.plugins.files.items()}
    if json:
        write_json([_strategy(strategy, files.get(key, "")) for key, strategy in chosen.items()])
    elif name is None:
        _list_strategies(chosen, files)
    else:
        _tell_strategy(found[name], files.get(name, ""))


def _strategy(strategy: "Strategy", file: str) -> dict[str, Any]:
    from daemon.commands.shelf import warmup_bars

    return {
        "name": strategy.name,
        "about": strategy.about,
        "params": {
            name: {"default": p.default, "low": p.low, "high": p.high, "about": p.about}
            for name, p in strategy.params.items()
        },
        "inputs": sorted(strategy.fields),
        "profiles": {name: dict(values) for name, values in strategy.profiles.items()},
        "reasons": {int(reason): strategy.explain(int(reason)) for reason in strategy.reasons},
        "warmup_bars": warmup_bars(strategy, {}),
        "plugin": file or None,
    }


def _list_strategies(found: "dict[str, Strategy]", files: dict[str, str]) -> None:
    from daemon.console import write, write_table

    rows = [
        (name, strategy.about.partition("\n")[0] + (" (plugin)" if name in files else ""))
        for name, strategy in found.items()
    ]
    write_table(("strategy", "what it does"), rows, wraps=["what it does"])
    write()
    write("More of one: lockstep strategies NAME")


def _tell_strategy(strategy: "Strategy", file: str) -> None:
    from daemon.console import write, write_pairs, write_table

    facts = _strategy(strategy, file)
    write_pairs(
        [
            ("strategy", facts["name"]),
            ("about", facts["about"]),
            ("inputs", ", ".join(facts["inputs"])),
            ("warm-up", f"{facts['warmup_bars']} bars"),
            *([("plugin", file)] if file else []),
        ]
    )
    write()
    rows = [(name, p.default, p.low, p.high, p.about) for name, p in strategy.params.items()]
    write_table(("parameter", "default", "low", "high", "meaning"), rows, wraps=["meaning"])
    for name, values in facts["profiles"].items():
        write()
        write_pairs([(key, value) for key, value in values.items()], title=f"profile {name}")
    write()
    write_table(
        ("code", "reason"),
        [(str(code), text) for code, text in facts["reasons"].items()],
        wraps=["reason"],
    )


def features(name: Name = None, json: Json = False) -> None:
    """List what strategies may read, or tell about one."""
    from core.errors import UnknownName
    from daemon.console import write, write_json, write_pairs, write_table
    from strategies.features import FEATURES

    if name is not None and name not in FEATURES:
        raise UnknownName("feature", name, FEATURES)
    chosen = list(FEATURES.values()) if name is None else [FEATURES[name]]
    if json:
        write_json([_feature(feature) for feature in chosen])
    elif name is None:
        rows = [(f.name, f.unit, f.about) for f in chosen]
        write_table(("feature", "unit", "meaning"), rows, wraps=["meaning"])
        write()
        write("Parameters and inputs of one: lockstep features NAME")
    else:
        facts = _feature(chosen[0])
        facts |= {"params": _call(chosen[0]) or "none", "inputs": ", ".join(facts["inputs"])}
        write_pairs(list(facts.items()))


def _feature(feature: "Feature") -> dict[str, Any]:
    return {
        "name": feature.name,
        "about": feature.about,
        "unit": feature.unit,
        "params": dict(feature.params),
        "inputs": sorted(feature().fields),
        "warmup_bars": feature().warmup(),
    }


def _call(feature: "Feature") -> str:
    return ", ".join(f"{name}={value:g}" for name, value in feature.params.items())
