"""Finishes the pages that mdbook has built, and fails on a link that leads nowhere.

mdbook takes every linked `.md` for a page of the book, also where it lies outside; and it leaves diagrams to others.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

BOOK = Path(sys.argv[1]).resolve()
DIAGRAMS = """<script src="{root}mermaid.min.js"></script>
<script>
for (const code of document.querySelectorAll("code.language-mermaid")) {{
    const drawn = document.createElement("div");
    drawn.className = "mermaid";
    drawn.textContent = code.textContent;
    code.parentElement.replaceWith(drawn);
}}
mermaid.initialize({{ startOnLoad: true, securityLevel: "strict" }});
</script>
</body>"""


class Page(HTMLParser):
    """The ids of a page, and where its links lead."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids.add(value)
            if name in ("href", "src") and value is not None:
                self.links.append(value)


def finish(path):
    """Leads links out of the book to the files as they are, and draws diagrams."""
    text = path.read_text()
    depth = len(path.relative_to(BOOK).parents) - 1
    out = "../" * (depth + 1)

    def as_it_is(link):
        target = link.group(1)
        file = (path.parent / target).resolve().with_suffix(".md")
        return f'href="{target[:-len(".html")]}.md"' if file.exists() else link.group(0)

    text = re.sub(rf'href="({re.escape(out)}[^"#]*\.html)(?:#[^"]*)?"', as_it_is, text)
    if "language-mermaid" in text and (BOOK / "mermaid.min.js").exists():
        text = text.replace("</body>", DIAGRAMS.format(root="../" * depth), 1)
    path.write_text(text)
    return Page(text)


pages = {path: finish(path) for path in sorted(BOOK.rglob("*.html"))}
broken = []
for path, page in pages.items():
    # It has every page in one, and their links are those of their own places.
    if path.name in ("print.html", "404.html", "toc.html"):
        continue
    for link in page.links:
        if re.match(r"[a-z]+:", link):
            continue
        file, _, fragment = link.partition("#")
        target = (path.parent / unquote(file)).resolve() if file else path
        if not target.exists():
            broken.append(f"{path.relative_to(BOOK)}: {link} leads nowhere")
        elif fragment and target in pages and unquote(fragment) not in pages[target].ids:
            broken.append(f"{path.relative_to(BOOK)}: {link} has no such heading")
print("\n".join(broken), file=sys.stderr)
chapters = [path for path in pages if path.name not in ("print.html", "404.html", "toc.html", "index.html")]
if broken or len(chapters) < 10:
    sys.exit(f"{len(broken)} broken links in {len(chapters)} chapters")
print(f"{BOOK}/index.html: {len(chapters)} chapters")
