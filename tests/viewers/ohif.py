"""OHIF in a headless browser: its files and an archive's DICOMweb on one origin, and what it shows of a study."""

from __future__ import annotations

import mimetypes
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import requests
from PIL import Image

CONFIGURATION = """
const dicomWeb = '/dicom-web';
window.config = {
  routerBasename: '/', extensions: [], modes: [], customizationService: {}, showStudyList: true,
  maxNumberOfWebWorkers: 2, showErrorDetails: 'always', strictZSpacingForVolumeViewport: true,
  defaultDataSourceName: 'archive',
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'archive',
    configuration: {
      friendlyName: 'archive', name: 'archive', wadoUriRoot: dicomWeb, qidoRoot: dicomWeb, wadoRoot: dicomWeb,
      qidoSupportsIncludeField: true, imageRendering: 'wadors', thumbnailRendering: 'wadors',
      enableStudyLazyLoad: true, supportsFuzzyMatching: false, supportsWildcard: true, dicomUploadEnabled: false,
      omitQuotationForMultipartRequest: true, singlepart: 'bulkdata,video', bulkDataURI: { enabled: true },
    },
  }],
};
"""
WITHOUT_GPU = (
    "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-quic",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
)  # fmt: skip
NO_TOUR = "try { localStorage.setItem('shownTours', '[\"basicViewerTour\"]') } catch {}"
PATIENCE_MS = 120_000
SHOW = """([series]) => {
  const { displaySetService, viewportGridService } = window.services;
  const found = displaySetService.getActiveDisplaySets().find(set => set.SeriesInstanceUID === series);
  if (!found) throw new Error('OHIF has no display set of this series');
  viewportGridService.setDisplaySetsForViewports([{
    viewportId: viewportGridService.getActiveViewportId(), displaySetInstanceUIDs: [found.displaySetInstanceUID] }]);
}"""
"""As a double click on the series does."""
VIEWPORT = (
    "const port = window.cornerstone.getRenderingEngines().flatMap(e => e.getViewports()).find(p => p.getImageIds);"
)
GO_TO = f"""async ([image]) => {{
  {VIEWPORT}
  await port.setImageIdIndex(port.getImageIds().findIndex(id => id.endsWith(image)));
  port.render();
}}"""
CANVAS = f"""points => {{
  {VIEWPORT}
  const area = port.element.getBoundingClientRect();
  return points.map(point => port.worldToCanvas(point)).map(([x, y]) => [area.left + x, area.top + y]);
}}"""
SEGMENTATIONS = "() => window.services?.segmentationService?.getSegmentations().map(s => s.label)"
DRAWN = """() => window.cornerstoneTools.annotation.state.getAllAnnotations()
  .filter(a => a.metadata.toolName === 'DICOMSRDisplay')
  .map(a => ({ image: a.metadata.referencedImageId, lines: Object.values(a.data.renderableData).flat() }))"""
SETS = """() => Object.fromEntries(window.services.displaySetService.getActiveDisplaySets()
  .map(set => [set.SeriesInstanceUID, !set.unsupported]))"""


class Ohif:
    """One study in OHIF.

    Attributes
    ----------
    faults
        What the browser's console calls an error, uncaught errors, and requests that failed.
    """

    def __init__(self, page: Any, url: str, study_instance_uid: str) -> None:
        self.faults: list[str] = []
        self._page = page
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.faults.append(str(error)[:500]))
        page.on("response", self._answered)
        page.add_init_script(NO_TOUR)
        page.goto(f"{url}/basic?StudyInstanceUIDs={study_instance_uid}")
        self._wait("window.services?.displaySetService?.getActiveDisplaySets().length > 0")
        self._wait(
            "window.cornerstone?.getRenderingEngines().some(e => e.getViewports().some(p => p.getCurrentImageId?.()))"
        )
        page.get_by_text("Confirm and hide").click()

    def _heard(self, said: Any) -> None:
        if said.type == "error":
            self.faults.append(said.text[:500])

    def _answered(self, answer: Any) -> None:
        if answer.status >= 400:
            self.faults.append(f"HTTP {answer.status}")

    def show(self, series_instance_uid: str) -> None:
        """Put a series into the viewport."""
        self._page.evaluate(SHOW, [series_instance_uid])

    def shows(self) -> dict[str, bool]:
        """Tell of each series whether OHIF can show it."""
        found: dict[str, bool] = self._page.evaluate(SETS)
        return found

    def wait_for_segmentation(self) -> None:
        self._wait(f"({SEGMENTATIONS})().length > 0")
        self._page.get_by_text("Do you want to open this Segmentation?").wait_for(timeout=PATIENCE_MS)
        self._settle()

    def go_to(self, image: str) -> None:
        """Show the image whose identifier ends so."""
        self._page.evaluate(GO_TO, [image])
        self._settle()

    def colours_at(self, places: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return the RGB that is seen at places in patient coordinates (mm); only those that are on the screen."""
        spots = np.asarray(self._page.evaluate(CANVAS, np.asarray(places, float).tolist())).round().astype(int)
        picture = np.asarray(Image.open(BytesIO(self._page.screenshot())).convert("RGB")).astype(int)
        colours: npt.NDArray[np.int64] = picture[spots[:, 1], spots[:, 0]]
        return colours

    def drawn(self) -> Sequence[dict[str, Any]]:
        """Return the lines of the report that is open: ``image`` and ``lines`` in patient coordinates."""
        self._wait(f"({DRAWN})().length > 0")
        found: list[dict[str, Any]] = self._page.evaluate(DRAWN)
        return found

    def patient(self) -> str:
        """Return what OHIF says of the patient."""
        self._page.get_by_text("Patient", exact=True).first.click()
        self._settle()
        return str(self._page.inner_text("body"))

    def picture(self, path: Path) -> None:
        """Keep what is seen."""
        self._page.screenshot(path=str(path))

    def _settle(self) -> None:
        self._page.wait_for_timeout(1500)

    def _wait(self, condition: str) -> None:
        self._page.wait_for_function(f"() => {condition}", timeout=PATIENCE_MS)


class Archive(BaseHTTPRequestHandler):
    """Serves OHIF's files, and hands its DICOMweb requests on."""

    protocol_version = "HTTP/1.1"
    app: Path
    dicomweb: str

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path.startswith("/dicom-web/"):
            headers = {"Accept": self.headers.get("Accept", "*/*"), "Host": self.headers["Host"]}
            with requests.Session() as session:
                session.trust_env = False
                answer = session.get(
                    self.dicomweb + self.path.removeprefix("/dicom-web"), headers=headers, timeout=60
                )
            self._answer(answer.content, answer.headers.get("Content-Type", ""), answer.status_code)
        elif path == "/app-config.js":
            self._answer(CONFIGURATION.encode(), "text/javascript")
        else:
            file = self.app / path.lstrip("/")
            if not file.is_file():
                file = self.app / "index.html"  # every route is the application's own
            kind = {".wasm": "application/wasm", ".js": "text/javascript"}.get(file.suffix)
            self._answer(file.read_bytes(), kind or mimetypes.guess_type(file)[0] or "application/octet-stream")

    def _answer(self, body: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """A test's output is its result."""


@contextmanager
def served(app: Path, dicomweb: str) -> Iterator[str]:
    """Serve OHIF over an archive's DICOMweb; yields its URL."""
    handler = type("Bound", (Archive,), {"app": app, "dicomweb": dicomweb})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
