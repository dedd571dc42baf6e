"""Personal data and secrets in rows: e-mail addresses, telephone and account numbers, addresses of machines, keys.

A cheap expression selects the texts that may hold any; then libraries decide, all of which work offline: phonenumbers
(numbering plans of all countries), python-stdnum (checksums of IBANs and cards), detect-secrets (formats of tokens),
and `ipaddress`. What is meant for examples is not counted: domains of RFC 2606, addresses that are not routed.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import ipaddress
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from siftune.curation import schema
from siftune.curation.errors import UserError, missing_extra
from siftune.curation.formats.cells import json_text
from siftune.curation.recipe.sections import Checks
from siftune.curation.row_checks.turns import rewrite, turns_of

#: Where a finding begins and ends in a text.
Span = tuple[int, int]

#: Names that no mail reaches: RFC 2606 and RFC 6761.
_EXAMPLE_DOMAINS = re.compile(r"(?:^|\.)(?:example(?:\.(?:com|net|org))?|test|invalid|localhost)$", re.IGNORECASE)
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@((?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24})(?![\w-])")
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)")
_CARD = re.compile(r"(?<![\w.,+-])\d(?:[ -]?\d){12,18}(?![\w-]|[.,]\d)")
#: The first digits of the large issuers and the lengths of their numbers (ISO/IEC 7812): Luhn's check digit alone lets
#: one in ten numbers pass.
_ISSUERS = re.compile(
    r"4\d{12}(?:\d{3}){0,2}"  # Visa
    r"|(?:5[1-5]\d{2}|222[1-9]|22[3-9]\d|2[3-6]\d{2}|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3(?:0[0-5]|[68]\d)\d{11}"  # Diners Club
    r"|(?:6011|65\d{2}|64[4-9]\d)\d{12}"  # Discover
    r"|35(?:2[89]|[3-8]\d)\d{12}"  # JCB
    r"|62\d{14,17}"  # UnionPay
)
_IP = re.compile(r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7})(?![\w:]|\.\d)")
_IPV6_UNICAST = ipaddress.ip_network("2000::/3")  # what IANA gives out, RFC 4291
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----(?:[\s\S]{0,20000}?-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----"
    r"|[A-Za-z0-9+/=\s\\]*)"
)
#: Plugins of detect-secrets that know a token by its form. Those that go by entropy or by a word before an equals sign
#: find code more often than secrets.
_TOKENS = (
    *("aws.AWSKeyDetector", "azure_storage_key.AzureStorageKeyDetector", "basic_auth.BasicAuthDetector"),
    *("discord.DiscordBotTokenDetector", "github_token.GitHubTokenDetector", "gitlab_token.GitLabTokenDetector"),
    *("jwt.JwtTokenDetector", "mailchimp.MailchimpDetector", "npm.NpmDetector", "openai.OpenAIDetector"),
    *("pypi_token.PypiTokenDetector", "sendgrid.SendGridDetector", "slack.SlackDetector"),
    *("square_oauth.SquareOAuthDetector", "stripe.StripeDetector", "telegram_token.TelegramBotTokenDetector"),
    "twilio.TwilioKeyDetector",
)
#: Of these the secret is a group of the expression; of the others it is all that matches.
_SECRET_IN_GROUP = ("AWSKeyDetector", "BasicAuthDetector")


@dataclass(frozen=True)
class PersonalDataKind:
    """A kind of personal data.

    Attributes:
        candidate: an expression that every text with such data contains; for polars, which has no look-around.
        mask: what stands in its place when it is masked.
        find: the spans in a text, for the countries of telephone numbers without a country code.
        package: the package that it needs, with the name of its module; None for the standard library.
    """

    candidate: str
    mask: str
    find: Callable[[str, Sequence[str]], Iterator[Span]]
    package: tuple[str, str] | None = None


def _emails(text: str, _: Sequence[str]) -> Iterator[Span]:
    for match in _EMAIL.finditer(text):
        if not _EXAMPLE_DOMAINS.search(match[1]):
            yield match.span()


def _phones(text: str, regions: Sequence[str]) -> Iterator[Span]:
    """Valid numbers: with a country code right behind a plus sign, and as they are written in the given countries."""
    import phonenumbers

    spans = {
        (match.start, match.end)
        for region in (None, *regions)
        for match in phonenumbers.PhoneNumberMatcher(text, region)
        if region is not None or re.match(r"\+[\d(]", text[match.start : match.start + 2])
    }
    yield from _without_overlaps(spans)


def _ibans(text: str, _: Sequence[str]) -> Iterator[Span]:
    from stdnum import iban

    return (match.span() for match in _IBAN.finditer(text) if iban.is_valid(match[0]))


def _cards(text: str, _: Sequence[str]) -> Iterator[Span]:
    from stdnum import luhn

    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if _ISSUERS.fullmatch(digits) and luhn.is_valid(digits):
            yield match.span()


def _ip_addresses(text: str, _: Sequence[str]) -> Iterator[Span]:
    """Addresses of the public Internet: no private, local or documentation ones."""
    for match in _IP.finditer(text):
        try:
            address = ipaddress.ip_address(match[0])
        except ValueError:
            continue
        if address.is_global and not address.is_multicast and (address.version == 4 or address in _IPV6_UNICAST):
            yield match.span()


def _secrets(text: str, _: Sequence[str]) -> Iterator[Span]:
    spans = {match.span() for match in _PRIVATE_KEY.finditer(text)}
    for plugin, in_group in _token_plugins():
        for expression in plugin.denylist:
            for match in expression.finditer(text):
                if any(plugin.analyze_string(match[0])):
                    spans.add(match.span(match.lastindex or 0) if in_group else match.span())
    yield from _without_overlaps(spans)


@functools.cache
def _token_plugins() -> list[tuple[Any, bool]]:
    plugins = []
    for name in _TOKENS:
        module, _, class_name = name.partition(".")
        detector = getattr(importlib.import_module(f"detect_secrets.plugins.{module}"), class_name)
        plugins.append((detector(), class_name in _SECRET_IN_GROUP))
    return plugins


def _without_overlaps(spans: set[Span]) -> Iterator[Span]:
    """The spans in their order; of two that overlap the one that begins first, or the longer one."""
    end = 0
    for span in sorted(spans, key=lambda span: (span[0], -span[1])):
        if span[0] >= end:
            yield span
            end = span[1]


#: By the name of its check. In this order texts are masked: a key may hold what looks like an address.
KINDS: dict[str, PersonalDataKind] = {
    "secret": PersonalDataKind(
        r"-----BEGIN |://[^\s:]+:[^\s@]+@|[A-Za-z0-9_\-/+]{16}",
        "[SECRET]",
        _secrets,
        ("detect-secrets", "detect_secrets"),
    ),
    "email": PersonalDataKind(r"\w@\w", "[EMAIL]", _emails),
    "iban": PersonalDataKind(r"[A-Z]{2}\d{2} ?[A-Z0-9]{4}", "[IBAN]", _ibans, ("python-stdnum", "stdnum")),
    "card": PersonalDataKind(r"\d(?:[ -]?\d){12}", "[CARD]", _cards, ("python-stdnum", "stdnum")),
    "ip_address": PersonalDataKind(
        r"\d\.\d{1,3}\.\d{1,3}\.\d|[0-9A-Fa-f]?:[0-9A-Fa-f]*:", "[IP_ADDRESS]", _ip_addresses
    ),
    "phone": PersonalDataKind(r"\d[\d ().\-/]{5,}\d", "[PHONE]", _phones, ("phonenumbers", "phonenumbers")),
}


def kinds_with(checks: Checks, *actions: Literal["report", "mask", "drop"]) -> list[str]:
    """The kinds for which a recipe asks for one of these actions, in the order in which texts are masked.

    Raises:
        UserError: a package that one of them needs is not installed, or a country does not exist.
    """
    names = [name for name in KINDS if getattr(checks, name) in actions]
    for name in names:
        package = KINDS[name].package
        if package and importlib.util.find_spec(package[1]) is None:
            raise missing_extra(package[0], "personal")
    if "phone" in names and checks.phone_regions:
        import phonenumbers

        unknown = [code for code in checks.phone_regions if code not in phonenumbers.SUPPORTED_REGIONS]
        if unknown:
            raise UserError(
                f"checks.phone_regions: there is no country {unknown[0]!r}. Accepted: codes of two capital letters "
                "(ISO 3166), such as US or DE."
            )
    return names


def detector_versions(names: Sequence[str]) -> dict[str, str]:
    """The versions of the packages that these kinds are found with: they decide what is masked."""
    packages = {package[0] for name in names if (package := KINDS[name].package)}
    return {name: importlib.metadata.version(name) for name in sorted(packages)}


def find(text: str, name: str, regions: Sequence[str] = ()) -> list[Span]:
    """The spans of one kind in a text, in order; `regions` are the countries of numbers without a country code."""
    return list(KINDS[name].find(text, regions))


def check(batch: pl.DataFrame, name: str, regions: Sequence[str]) -> pl.DataFrame:
    """`id`, `score` (how many) and `detail` (the first, all but its beginning hidden) of the rows that hold a kind.

    Args:
        batch: the columns `id`, `system`, `prompt` and `answer` of TEXTS.
        name: the kind.
        regions: as of `find`.
    """
    text = pl.concat_str(pl.col("system", "prompt", "answer").fill_null(""), separator="\n")
    candidates = batch.select("id", text.alias("text")).filter(pl.col("text").str.contains(KINDS[name].candidate))
    rows = []
    for row_id, searched in candidates.iter_rows():
        spans = find(searched, name, regions)
        if spans:
            first = searched[slice(*spans[0])]
            rows.append((row_id, float(len(spans)), f"{first[:2]}… ({len(first):,} characters)"))
    return pl.DataFrame(rows, schema={"id": pl.String, "score": pl.Float64, "detail": pl.String}, orient="row")


def mask_batch(batch: pl.DataFrame, names: Sequence[str], regions: Sequence[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """EXAMPLES with some kinds masked in every turn and in the texts of other columns, and the DECISIONS that say so.

    There is a decision for each row and kind; `score` counts what was masked, `detail` says where, and nothing repeats
    what was masked.

    Args:
        batch: EXAMPLES.
        names: the kinds, in the order in which they are masked.
        regions: as of `find`.
    """
    candidate = "|".join(KINDS[name].candidate for name in names)
    turns = turns_of(batch)
    counts: list[tuple[int, str, str, int]] = []  # row, kind, where, how many
    changed: list[tuple[int, int, str]] = []
    suspicious = turns.filter(pl.col("content").str.contains(candidate))
    for position, turn, role, content in suspicious.select("position", "turn", "role", "content").iter_rows():
        masked, of_kind = _mask(content, names, regions)
        counts += [(position, name, role, count) for name, count in of_kind.items()]
        if of_kind:
            changed.append((position, turn, masked))
    columns = {"position": pl.UInt32, "turn": pl.Int64, "after": pl.String}
    frame = rewrite(batch, turns, pl.DataFrame(changed, schema=columns, orient="row"))

    # The other columns of a row are published with it, and some are trained on: thoughts and calls.
    metas = frame["meta"].to_list()
    for position in frame["meta"].str.contains(candidate).fill_null(value=False).arg_true():
        of_kind = Counter[str]()
        masked_meta = _mask_cells(json.loads(metas[position]), names, regions, of_kind)
        counts += [(position, name, "other columns", count) for name, count in of_kind.items()]
        if of_kind:
            metas[position] = json_text(masked_meta)
    frame = frame.with_columns(pl.Series("meta", metas, dtype=pl.String))
    return frame, _decisions(batch["id"], counts)


def _mask(text: str, names: Sequence[str], regions: Sequence[str]) -> tuple[str, Counter[str]]:
    """The text with masks, and how many of each kind there are."""
    counts = Counter[str]()
    for name in names:
        if re.search(KINDS[name].candidate, text):
            for start, end in reversed(find(text, name, regions)):
                text = text[:start] + KINDS[name].mask + text[end:]
                counts[name] += 1
    return text, counts


def _mask_cells(cell: Any, names: Sequence[str], regions: Sequence[str], counts: Counter[str]) -> Any:
    """JSON with the texts in it masked; `counts` grows by what was."""
    if isinstance(cell, str):
        masked, of_cell = _mask(cell, names, regions)
        counts.update(of_cell)
        return masked
    if isinstance(cell, list):
        return [_mask_cells(one, names, regions, counts) for one in cell]
    if isinstance(cell, dict):
        return {name: _mask_cells(one, names, regions, counts) for name, one in cell.items()}
    return cell


def _decisions(ids: pl.Series, counts: list[tuple[int, str, str, int]]) -> pl.DataFrame:
    """DECISIONS, one for each row and kind, in the order of the rows and of the kinds."""
    columns = {"position": pl.UInt32, "reason": pl.String, "where": pl.String, "count": pl.UInt32}
    frame = pl.DataFrame(counts, schema=columns, orient="row").with_columns(
        kind=pl.col("reason").replace_strict(list(KINDS), list(range(len(KINDS))), return_dtype=pl.Int64)
    )
    by_place = frame.group_by("position", "kind", "reason", "where", maintain_order=True).agg(pl.col("count").sum())
    by_row = by_place.group_by("position", "kind", "reason", maintain_order=True).agg(
        score=pl.col("count").sum().cast(pl.Float64),
        detail=pl.format("{} in {}", "count", "where").str.join(", "),
    )
    by_row = by_row.sort("position", "kind")
    decided = by_row.with_columns(id=ids.gather(by_row["position"]), action=pl.lit("mask"))
    return schema.conform(decided, schema.DECISIONS)
