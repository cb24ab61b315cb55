"""Write ATTRIBUTION.md: whose drawings the benchmark holds, under which licence, and what was changed."""

from pathlib import Path
from typing import Any

from .fetch import packages

# style -> (npm package, folder under assets/emoji)
DRAWN = {
    "@iconify-json/noto": ("noto",),
    "@iconify-json/twemoji": ("twemoji",),
    "openmoji": ("openmoji", "openmoji_black"),
    "@iconify-json/fluent-emoji-flat": ("fluent_flat",),
    "@iconify-json/fluent-emoji-high-contrast": ("fluent_contrast",),
    "@lobehub/fluent-emoji-3d": ("fluent_3d",),
}
LINKS = {
    "Apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "CC-BY-3.0": "https://creativecommons.org/licenses/by/3.0/",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-SA-4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "ISC": "https://opensource.org/license/isc-license-txt",
    "MIT": "https://opensource.org/license/mit",
    "OFL-1.1": "https://openfontlicense.org",
}
HEAD = """# Whose drawings these are

The images below this folder are drawings of others. Their licences are kept: they are **not** under this
repository's licence. `scripts/emoji/build.py` made them from the npm packages named here.

What was changed, in all of them: each drawing was rendered (Fluent 3D: scaled down) to 64 x 64 pixels on a white
ground and reduced to grey levels or to a palette of at most 256 colours. `index.json` and the choice and naming of
classes are ours; the names of the emoji are Unicode's, by way of emojibase-data (MIT, Miles Johnson).

"""
PRETRAINED = """
# What EmojiCLIP was trained on

`../emoji_clip.pt.gz` holds weights only, no drawing. It was pre-trained on drawings of these packages (of Noto and
Noto v1 without any emoji of the benchmark):

"""
NOTICES = """
# Notices

**Noto Emoji.** Copyright Google Inc. Licensed under the Apache License, Version 2.0; a copy is in
[LICENSE-Apache-2.0.md](LICENSE-Apache-2.0.md). Changed as said above.

**Twemoji.** Copyright Twitter, Inc and other contributors. Graphics licensed under CC-BY 4.0.

**OpenMoji.** All emojis designed by OpenMoji – the open-source emoji and icon project. License: CC BY-SA 4.0. The
images in `openmoji/` and `openmoji_black/` are adaptations and stay under CC BY-SA 4.0.

**Fluent Emoji.** MIT License. Copyright (c) Microsoft Corporation.

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def _row(name: str, entry: dict[str, Any], first: str) -> str:
    licence = f"[{entry['licence']}]({LINKS[entry['licence']]})"
    author = f"[{entry['author']}]({entry['url']})"
    return f"| {first} | {entry['title']} | {author} | {licence} | `{name}@{entry['version']}` |\n"


def write_attribution(path: Path) -> None:
    """A table of the benchmark's styles, one of the pre-training data, and the notices the licences ask for."""
    table = packages()
    columns = "| {} | set | author | licence | npm package |\n|---|---|---|---|---|\n"
    text = HEAD + columns.format("folder")
    for name, folders in DRAWN.items():
        text += _row(name, table[name], ", ".join(f"`{f}/`" for f in folders))
    text += PRETRAINED + columns.format("kind")
    for name, entry in table.items():
        if entry["role"] in ("emoji style", "icons") or name == "@iconify-json/noto":
            text += _row(name, entry, "icons" if entry["role"] == "icons" else "emoji")
    path.write_text(text + NOTICES, encoding="utf-8")
