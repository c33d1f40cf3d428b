"""The config's fields as help in 80 columns: what each takes, its default, what it is."""

from __future__ import annotations

import textwrap
import typing
from collections.abc import Iterator

from pipeline.config import RunConfig
from pipeline.config_fields import ConfigField, Section, sections
from pipeline.config_mistakes import models_in
from pipeline.domains import DomainConfig

_COLUMNS = 79
_DOMAIN = "domains.N"


def config_help(config: RunConfig | None) -> str:
    """All fields of a run's config.

    Args:
        config: whose values are told as defaults; None: the defaults of every config.
    """
    whose = "the file's value" if config is not None else "the default"
    text = [
        f"fields of the config, with {whose} in brackets",
        "(all but the domains' are options too):",
    ]
    for section in sections(RunConfig, config):
        text += ["", *_section(section, as_options=True)]
    for section in domain_sections():
        text += ["", *_section(section, as_options=False)]
    return "\n".join(text)


def domain_sections() -> Iterator[Section]:
    """The fields of one domain; those of a source under the format that has them."""
    annotation = DomainConfig.model_fields["source"].annotation
    for section in sections(DomainConfig, path=_DOMAIN, description="a domain, in the YAML file"):
        kept = tuple(f for f in section.fields if f.path != f"{_DOMAIN}.source")
        yield Section(section.path, section.description, kept)
    for source in models_in(annotation):
        (name,) = typing.get_args(source.model_fields["format"].annotation)
        about = f"a source with format: {name}"
        yield from sections(source, path=f"{_DOMAIN}.source", description=about)


def _section(section: Section, *, as_options: bool) -> list[str]:
    title = f"{section.path}: {section.description}" if section.path else "the run"
    lines = textwrap.wrap(title, _COLUMNS)
    for field in section.fields:
        lines += _field(field, as_options=as_options)
    return lines


def _field(field: ConfigField, *, as_options: bool) -> list[str]:
    is_option = as_options and field.path != "domains"
    name = field.option if is_option else field.path
    head = textwrap.wrap(
        name if field.path == "domains" else f"{name} {field.kind}",
        _COLUMNS - 2,
        break_on_hyphens=False,
        subsequent_indent="    ",
    )
    default = "required" if field.default is None else field.default
    about = f"{field.description.rstrip('.')} [{default}]"
    body = textwrap.wrap(about, _COLUMNS - 6, break_on_hyphens=False)
    return [f"  {line}" for line in head] + [f"      {line}" for line in body]
