"""What export writes, held against promtool, node_exporter and a Prometheus that scrapes it: all on loopback."""

import http.server
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

from secondsight.host.metrics import openmetrics
from secondsight.predict.at_most import Bounds
from support.host_views import NAMES, row, view

pytestmark = [
    pytest.mark.prometheus,
    pytest.mark.skipif(
        not (shutil.which("promtool") and shutil.which("prometheus")), reason="no Prometheus here"
    ),
]
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PLAIN = "text/plain; version=0.0.4; charset=utf-8"


@pytest.fixture(scope="module")
def text():
    return openmetrics(
        view(
            [
                row(
                    name, float(at + 1), headroom=at, guest=5, guest_huge=4, busy=1.5, saves=Bounds(-0.1, 0.5)
                )
                for at, name in enumerate(NAMES)
            ]
        ),
        50,
    )


def test_promtool_has_nothing_to_say(text):
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def asked(port, query):
    where = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(where, timeout=5) as answer:
        return json.load(answer)["data"]["result"]


def waited(work, seconds=60.0):
    end = time.monotonic() + seconds
    while True:
        try:
            if result := work():
                return result
        except (urllib.error.URLError, ConnectionError):
            pass
        assert time.monotonic() < end, "no answer in time"
        time.sleep(0.3)


@pytest.mark.parametrize("kind", [OPENMETRICS, PLAIN])
def test_prometheus_answers_for_every_metric(text, kind, tmp_path):
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = free_port()
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s}\nscrape_configs:\n  - job_name: t\n    static_configs:\n"
        f"      - targets: ['127.0.0.1:{server.server_port}']\n"
    )
    command = [
        "prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}", f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as prometheus:
        try:
            waited(lambda: asked(port, "up == 1"))
            names = sorted(
                {line.split()[2] for line in text.decode().splitlines() if line.startswith("# TYPE")}
            )
            for name in names:
                written = [
                    line for line in text.decode().splitlines() if line.split("{")[0].split(" ")[0] == name
                ]
                answers = waited(lambda name=name: asked(port, name))
                assert len(answers) == len(written), name
            labels = {each["metric"]["name"] for each in asked(port, "secondsight_group_resident_bytes")}
            assert {"/plain", 'qu"ote', "日本"} <= labels
        finally:
            prometheus.terminate()
            server.shutdown()


def test_node_exporter_serves_the_file(text, tmp_path):
    program = shutil.which("prometheus-node-exporter")
    if program is None:
        pytest.skip("no node_exporter here")
    (tmp_path / "secondsight.prom").write_bytes(text)
    port = free_port()
    command = [program, f"--web.listen-address=127.0.0.1:{port}", "--collector.disable-defaults", "--collector.textfile",
               f"--collector.textfile.directory={tmp_path}"]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as exporter:
        try:

            def page():
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                    return answer.read().decode()

            served = waited(page)
            assert "node_textfile_scrape_error 0" in served
            assert 'secondsight_group_resident_bytes{by="cgroup",name="/plain"} 100' in served
        finally:
            exporter.terminate()
