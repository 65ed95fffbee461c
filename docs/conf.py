"""The documentation, as Sphinx builds it: ``python -m sphinx -W --keep-going -b html docs build/docs``."""

from __future__ import annotations

import sys
from pathlib import Path

import ssehub

sys.path.insert(0, str(Path(__file__).parent))

project = "ssehub"
author = "the ssehub maintainers"
release = version = ssehub.__version__

extensions = ["sphinx.ext.autodoc", "diagram"]
exclude_patterns = ["_build"]
default_role = "py:obj"
highlight_language = "none"
nitpicky = True
#: What other packages document; the build must not need the network.
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(collections|datetime|os|threading|types|requests|markupsafe|werkzeug|flask|django|redis|prometheus_client)\..*",
    ),
    (r"py:.*", r"BadRequest|ImproperlyConfigured|ResponseReturnValue"),  # of Django and Flask
    # Type variables; a value.
    (r"py:.*", r"(ssehub\.(hooks|client\.callbacks)\.)?[CPR]|ssehub\.log\.packet\._All\.ALL"),
    (r"py:.*", r"ssehub\.integrations\.flask\.(extension\.)?_\w+Hook"),
    (r"py:.*", r"ssehub\.integrations\.django\.site\.Settings"),
]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"ssehub {release}"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
