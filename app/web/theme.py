"""Colours and the style sheet. Okabe and Ito's palette: distinct for colour-blind readers, on white and on black."""

from __future__ import annotations

FATES = {"kept": "#0072B2", "dropped": "#D55E00", "quarantined": "#8A8A8A"}
ARMS = {
    "base": "#8A8A8A",
    "raw": "#E69F00",
    "curated": "#0072B2",
    "random": "#CC79A7",
    "random-2": "#F0E442",
    "balanced-random": "#999933",  # of Tol's muted palette
    "longest": "#009E73",
}
OTHER = "#56B4E9"


def arm_colour(arm: str) -> str:
    """The colour of an arm, the same on every page."""
    return ARMS.get(arm, OTHER)


def _tones() -> str:
    return "".join(
        f".sf.turn.{name}>.who::before{{content:'';display:inline-block;width:.6em;height:.6em;"
        f"border-radius:50%;margin-right:.45em;background:{colour}}}"
        f".sf.turn.{name}{{border-left-color:{colour}}}"
        f".sf.bar i.{name}{{background:{colour}}}"
        f".sf.tag.{name}{{border-color:{colour};box-shadow:inset 3px 0 0 {colour};padding-left:.65em}}"
        for name, colour in {**FATES, **ARMS}.items()
    )


#: Shades are mixed from the text colour, so that one style sheet serves the light and the dark theme.
STYLE = """
.stMainBlockContainer{padding-top:4.5rem;padding-bottom:3rem;max-width:1240px}
.sf{font-size:.95rem;line-height:1.5;overflow-wrap:anywhere}
.sf .text{white-space:pre-wrap;unicode-bidi:isolate;overflow-wrap:anywhere}
.sf .text.mono{font-family:"Source Code Pro",ui-monospace,monospace;font-size:.82em}
.sf .text.drawn{white-space:pre;overflow-wrap:normal;overflow-x:auto}
.sf pre{white-space:pre-wrap;unicode-bidi:isolate;overflow-wrap:anywhere;margin:.4rem 0;padding:.5rem .7rem;
  font-size:.85em;border-radius:.4rem;background:color-mix(in srgb,currentColor 7%,transparent);border:0;color:inherit}
.sf.turn{margin:0 0 .6rem;padding:.55rem .85rem;border-radius:.5rem;
  border-left:3px solid color-mix(in srgb,currentColor 22%,transparent);
  background:color-mix(in srgb,currentColor 4%,transparent)}
.sf.turn.user{background:color-mix(in srgb,currentColor 9%,transparent)}
.sf.turn.system,.sf.turn.tool{font-style:italic}
.sf .who{font-size:.78rem;font-weight:600;letter-spacing:.02em;opacity:.8;margin-bottom:.15rem}
.sf mark{background:color-mix(in srgb,#E69F00 38%,transparent);color:inherit;border-radius:.15rem;padding:0 .08em}
.sf.faint,.sf .faint{opacity:.66;font-size:.9rem}
.sf.gap{text-align:center;margin:.5rem 0}
.sf.tag{display:inline-block;font-size:.78rem;line-height:1.35;padding:.05em .55em;margin:0 .3em .2em 0;
  border:1px solid color-mix(in srgb,currentColor 25%,transparent);border-radius:.35rem;white-space:nowrap}
.sf.facts{display:flex;flex-wrap:wrap;gap:.1rem 1.1rem;font-size:.8rem;opacity:.8;margin:.1rem 0 .6rem}
.sf.facts b{font-weight:600;opacity:.75;margin-right:.15em}
.sf.bar{display:flex;height:.8rem;border-radius:.25rem;overflow:hidden;min-width:4rem;
  background:color-mix(in srgb,currentColor 6%,transparent)}
.sf.bar i{display:block;height:100%}
.sf.scroll{overflow-x:auto}
.sf table{border-collapse:collapse;width:100%;font-size:.9rem}
.sf.strong,.sf table.named td:first-child{overflow-wrap:normal}
.sf .num+td:not(.num),.sf .num+th:not(.num){padding-left:.9rem}
.sf td small{opacity:.66;font-size:.8rem}
.sf th{overflow-wrap:normal;font-weight:600;text-align:left;opacity:.7;font-size:.8rem}
.sf th,.sf td{padding:.3rem .7rem .3rem 0;border:0;
  border-bottom:1px solid color-mix(in srgb,currentColor 12%,transparent);
  vertical-align:top}
.sf .num{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.sf .token{border-right:1px solid color-mix(in srgb,currentColor 18%,transparent)}
.sf .token.trained{background:color-mix(in srgb,#0072B2 26%,transparent)}
.sf.strong{font-weight:600}
.sf.head{font-weight:600;margin:.9rem 0 .35rem}
.sf.decision{font-size:.88rem;padding:.15rem 0 .15rem .7rem;margin:.15rem 0;
  border-left:2px solid color-mix(in srgb,currentColor 25%,transparent)}
h1.sf{font-size:1.7rem;font-weight:650;padding:0;margin:0}
.sf.big{font-size:1.15rem;line-height:1.45}
.sf.purpose{font-size:.95rem;opacity:.75;margin:0 0 .3rem}
.sf.figure .label{font-size:.85rem;font-weight:600;opacity:.75}
.sf.figure .value{font-size:1.6rem;font-weight:650;line-height:1.3;overflow-wrap:normal;
  font-variant-numeric:tabular-nums}
.sf.figure .small{font-size:.82rem;opacity:.75;line-height:1.35}
.st-key-figures>div{flex:1 1 11.8rem!important;min-width:11.8rem}
.st-key-figures a,.st-key-figures a p{padding-left:0;color:#2A86C4;font-size:.88rem}
.sf .md>:first-child{margin-top:0}
.sf .md>:last-child{margin-bottom:0}
.sf .md{unicode-bidi:isolate;overflow-wrap:anywhere}
.sf .md p,.sf .md ul,.sf .md ol,.sf .md blockquote,.sf .md table{margin:.35rem 0;font-size:inherit}
.sf .md ul,.sf .md ol{padding-left:1.4rem}
.sf .md li{margin:.1rem 0;font-size:inherit}
.sf .md h1,.sf .md h2,.sf .md h3,.sf .md h4,.sf .md h5,.sf .md h6{font-size:1.02em;font-weight:650;margin:.6rem 0 .2rem;
  padding:0;line-height:1.35}
.sf code,.sf .md code{font-size:.9em;padding:0 .2em;border-radius:.2rem;color:inherit;overflow-wrap:anywhere;
  background:color-mix(in srgb,currentColor 9%,transparent)}
.sf .md pre code{padding:0;background:none;font-size:1em}
.sf .md blockquote{border-left:3px solid color-mix(in srgb,currentColor 25%,transparent);padding-left:.7rem;
  margin-left:0}
.sf .md hr{margin:.6rem 0}
.sf .md .scroll{overflow-x:auto}
@media (max-width:1000px){
[class*="st-key-answers"] [data-testid="stHorizontalBlock"]{flex-wrap:wrap}
[class*="st-key-answers"] [data-testid="stColumn"]{min-width:100%}}
""" + _tones()

#: Streamlit's theme options, given to the server as flags `--theme.NAME`.
THEME = {
    "light.primaryColor": "#0072B2",
    "light.backgroundColor": "#FFFFFF",
    "light.secondaryBackgroundColor": "#F4F5F7",
    "light.textColor": "#1F2430",
    "light.linkColor": "#0072B2",
    "dark.primaryColor": "#4AA3DF",
    "dark.backgroundColor": "#14171C",
    "dark.secondaryBackgroundColor": "#1E232B",
    "dark.textColor": "#E4E7EC",
    "dark.linkColor": "#4AA3DF",
    "headingFontSizes": '["1.7rem", "1.3rem", "1.08rem", "1rem", "1rem", "1rem"]',
    "baseRadius": "0.45rem",
    "showWidgetBorder": "true",
}
