# Sourced by demo.sh and test.sh: from the root of the checkout, a Python environment with everything installed.
# Uses the active virtual environment, else .venv (made here). Installs once: again only if a requirement changed.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

if [ -z "${VIRTUAL_ENV:-}" ]; then
    if [ ! -x .venv/bin/python ]; then
        echo "Making the virtual environment .venv"
        "${PYTHON:-python3}" -m venv .venv
    fi
    # shellcheck disable=SC1091
    . .venv/bin/activate
fi

stamp="$VIRTUAL_ENV/.tlla-installed"
wanted=$(cat requirements.txt setup.py toolkit/pyproject.toml | python -c \
    'import hashlib, os, sys; print(hashlib.sha256(sys.stdin.buffer.read() + os.getcwd().encode()).hexdigest())')
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "Installing into $VIRTUAL_ENV (PyTorch is large: this can take some minutes)"
    python -m pip install --quiet --upgrade pip
    PYTHONWARNINGS=ignore python -m pip install --quiet -r requirements.txt
    echo "$wanted" > "$stamp"
fi
