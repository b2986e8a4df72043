"""Pages of the documentation -> the same with the figures of results/: rewrites figures that are out of date.

    python benchmarks/pages.py            # after new results, e.g. of refresh.sh
    python benchmarks/pages.py --check    # only say which; exit code 1 if there are any

`quotes.py` says which figures these are. Words around figures ("better", "a tenth") are not rewritten: read the lines
that changed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from facerecon_rt.errors import UsageError
from quotes import ROOT, Quote, quotes


def rewritten(page: str, all_quotes: list[Quote]) -> tuple[str, str]:
    """Return the text of a page and the text with all figures of its quotes."""
    before = after = (ROOT / page).read_text()
    for one in all_quotes:
        if one.page == page:
            after = one.written(after)
    return before, after


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite the pages, or only check them. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if a figure is out of date")
    options = parser.parse_args(arguments)
    all_quotes = quotes()
    changed = 0
    for page in sorted({one.page for one in all_quotes}):
        before, after = rewritten(page, all_quotes)
        for old, new in zip(before.splitlines(), after.splitlines(), strict=True):
            if old != new:
                changed += 1
                print(f"{page}\n- {old}\n+ {new}")
        if not options.check and after != before:
            (ROOT / page).write_text(after)
    print(f"{changed} lines {'are out of date' if options.check else 'were rewritten'}")
    return 1 if options.check and changed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UsageError as error:
        sys.exit(f"pages.py: {error}")
