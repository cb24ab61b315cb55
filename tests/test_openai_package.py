"""OpenAI's package is imported where there is no pkg_resources, and none of it stays behind."""

import subprocess
import sys

CODE = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pkg_resources":
            raise ModuleNotFoundError("No module named 'pkg_resources'")
sys.meta_path.insert(0, Missing())
from tlla.backbones.openai_package import clip
assert clip.tokenize("a cat").shape == (1, 77)
assert "pkg_resources" not in sys.modules
"""


def test_openais_package_needs_no_pkg_resources():
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", CODE], check=True)
