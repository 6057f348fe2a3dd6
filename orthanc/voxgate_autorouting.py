"""Orthanc Python plug-in: auto-routing to Voxgate. The configuration's "PythonScript" names this file.

Standard library only, Python 3.11 or newer. Installation and settings: docs/orthanc.md; why not Lua:
docs/adr/0010-orthanc-python-plugin.md. An Orthanc with a script of its own imports ``voxgate_router`` from it.
"""

from __future__ import annotations

from voxgate_router import install

import orthanc

install(orthanc)
