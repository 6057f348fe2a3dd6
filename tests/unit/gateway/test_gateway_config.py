from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from domain.errors import ConfigurationError
from gateway.cli import app
from gateway.config import Config, load_config
from gateway.sections import EngineSection
from inference.registry import declarations
from pipeline.delivery import DeliverySettings

ENGINES = ("lungs", "medsam2")


def load(tmp_path: Path, toml: str = "", **environ: str) -> Config:
    file = tmp_path / "voxgate.toml"
    file.write_text(toml)
    return load_config(file, environ, engines=ENGINES)


def faults(tmp_path: Path, toml: str = "", **environ: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, toml, **environ)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def test_works_with_no_file_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(None, {}, engines=ENGINES)
    assert (config.scp.port, config.http.port, config.scp.host) == (11112, 5000, "127.0.0.1")


def test_reads_the_file_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("voxgate.toml").write_text("[scp]\nport = 104")
    assert load_config(None, {}, engines=ENGINES).scp.port == 104


def test_the_environment_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text('[scp]\nae_title = "OTHER"')
    assert load_config(None, {"VOXGATE_CONFIG": str(file)}, engines=ENGINES).scp.ae_title == "OTHER"


def test_a_file_that_is_asked_for_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no such file"):
        load_config(tmp_path / "none.toml", {}, engines=ENGINES)


def test_the_environment_goes_over_the_file_key_by_key(tmp_path: Path) -> None:
    config = load(tmp_path, '[scp]\nport = 104\nae_title = "A"', VOXGATE_SCP__PORT="105")
    assert (config.scp.port, config.scp.ae_title) == (105, "A")


def test_port_in_the_environment_overrides_the_http_port(tmp_path: Path) -> None:
    assert load(tmp_path, "[http]\nport = 1", VOXGATE_HTTP__PORT="2", PORT="3").http.port == 3


@pytest.mark.parametrize("text", ["CT1, CT2", '["CT1", "CT2"]'])
def test_lists_may_come_from_the_environment(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, VOXGATE_SCP__CALLING_AE_TITLES=text).scp.calling_ae_titles == ("CT1", "CT2")


def test_destinations_may_come_from_the_environment_as_json(tmp_path: Path) -> None:
    text = '[{"name": "pacs", "kind": "dimse", "host": "orthanc", "port": 4242, "ae_title": "ORTHANC"}]'
    (destination,) = load(tmp_path, VOXGATE_DESTINATIONS=text).destinations
    assert destination.name == "pacs"


@pytest.mark.parametrize("written", ['"10.1.0.5:104"', '"[::1]:104"'])
def test_peers_are_written_as_host_and_port(tmp_path: Path, written: str) -> None:
    host = written.strip('"').rpartition(":")[0].strip("[]")
    assert load(tmp_path, f"[scp.peers]\nCT1 = {written}").scp.peers == {"CT1": (host, 104)}
    assert load(tmp_path, VOXGATE_SCP__PEERS=f'{{"CT1": {written}}}').scp.peers == {"CT1": (host, 104)}


@pytest.mark.parametrize("written", ["10.1.0.5", ":104", "host:", "host:0", "host:dicom"])
def test_a_peer_without_host_or_port_is_a_fault(tmp_path: Path, written: str) -> None:
    (fault,) = faults(tmp_path, f'[scp.peers]\nCT1 = "{written}"')
    assert fault.startswith("scp.peers.CT1")


def test_what_a_destination_cannot_confirm_is_a_fault(tmp_path: Path) -> None:
    web = 'name = "web"\nkind = "stow"\nurl = "http://pacs"\nconfirm = ["query", "commitment"]'
    (fault,) = faults(tmp_path, f"[[destinations]]\n{web}")
    assert fault == "destinations[0].confirm[1]: must be 'query'"


def test_default_routes_are_those_of_the_installed_engines(tmp_path: Path) -> None:
    (lungs,) = load(tmp_path).routes
    assert (lungs.engine, lungs.modality, lungs.min_instances) == ("lungs", ("CT",), 20)
    both = load_config(None, {}, engines=("lungs", "deepbet"))
    assert [route.engine for route in both.routes] == ["lungs", "deepbet"]
    assert both.routes[1].modality == ("MR",)
    assert both.routes[1].series_description == ()  # what is T1 the engine's own rule tells


@pytest.mark.parametrize("text", ['[engines.net]\ndevice = "cpu"', '[[routes]]\nname = "mr"\nengine = "net"'])
def test_an_engine_whose_software_is_missing_is_named_with_what_it_needs(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference.registry.not_installed", lambda: {"net": "torch"})
    (fault,) = faults(tmp_path, text)
    assert 'the engine "net" needs torch, which is not installed (make models)' in fault


def test_no_routes_can_be_asked_for(tmp_path: Path) -> None:
    assert load(tmp_path, "routes = []").routes == ()


def test_reports_every_fault_at_once_with_its_path(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        """
        spc = 1
        [scp]
        prot = 3
        port = 99999
        addresses = ["10.0.0.0/33"]
        [http]
        host = "0.0.0.0"
        [[destinations]]
        name = "a"
        kind = "dimse"
        host = "pacs"
        port = 104
        ae_title = "SEVENTEENLETTERS!"
        [[destinations]]
        name = "a"
        kind = "ftp"
        [[routes]]
        name = "chest"
        engine = "nodul"
        destinations = ["a", "b"]
        [engines.lungs]
        wieghts = "x"
        """,
        VOXGATE_COMPLETENESS__QUIET_S="soon",
    )
    for fault in (
        "spc: unknown setting; did you mean scp?",
        "scp.prot: unknown setting; did you mean port?",
        "scp.port: must be less than or equal to 65535",
        "http.host: listens beyond this machine: set http.token, or http.allow_unauthenticated = true",
        "destinations[0].ae_title: must be 1 to 16 ASCII characters without backslash",
        'destinations[1]: kind must be "dimse" or "stow"',
        'destinations[1].name: "a" is the name of destinations[0] already',
        'routes[0].engine: no engine called "nodul"; known: lungs, medsam2',
        'routes[0].destinations[1]: no destination called "b"; known: a',
        "engines.lungs.wieghts: unknown setting; did you mean weights?",
    ):
        assert fault in found
    assert any(fault.startswith("scp.addresses[0]:") for fault in found)
    assert any(fault.startswith("completeness.quiet_s:") for fault in found)
    assert len(found) == 12


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        (
            '[[destinations]]\nname = "w"\nkind = "stow"\nurl = "ftp://x"',
            "destinations[0].url: must begin with http:// or https:// and a host",
        ),
        (
            '[scp]\nprivate_sop_classes = ["1.02"]',
            "scp.private_sop_classes[0]: must be a UID of at most 64 characters",
        ),
        (
            '[[routes]]\nname = "a/b"\nengine = "lungs"',
            "routes[0].name: must be 1 to 64 characters without slash, backslash and control characters",
        ),
        ("[profiles.x]\nobjects = []", "profiles.x.objects: must have at least one entry"),
        (
            '[[routes]]\nname = "a"\nengine = "medsam2"\nprompts_from_dicom = { finding_codes = ["108369006"] }',
            "routes[0].prompts_from_dicom.finding_codes[0]: must be scheme:code, e.g. SCT:108369006",
        ),
    ],
)
def test_a_fault_says_what_is_wanted_in_words(tmp_path: Path, toml: str, said: str) -> None:
    assert faults(tmp_path, toml) == [said]


def test_a_profile_that_hides_a_built_in_one_is_not_listed_twice(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        """
        [profiles.ohif]
        base = "default"
        [[destinations]]
        name = "a"
        kind = "stow"
        url = "http://x"
        profile = "oif"
        """,
    )
    assert (
        'destinations[0].profile: no profile called "oif"; known: default, ohif, weasis, slicer, pacs-basic' in found
    )


def test_an_unknown_section_in_the_environment_is_a_fault(tmp_path: Path) -> None:
    assert faults(tmp_path, VOXGATE_SPC__PORT="1") == ["spc: unknown setting; did you mean scp?"]


def test_other_variables_of_ours_are_no_settings(tmp_path: Path) -> None:
    load(tmp_path, VOXGATE_REQUIRE_PEERS="1", VOXGATE_SHARED="/x")


def test_what_is_not_toml_is_said_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"not TOML: .*line 2"):
        load(tmp_path, "[scp]\nport == 1")


@pytest.mark.parametrize(
    "opened",
    ['calling_ae_titles = ["CT1"]', 'addresses = ["10.1.0.0/16"]', "allow_any_peer = true"],
)
def test_dimse_beyond_loopback_needs_a_restriction_or_an_opt_out(tmp_path: Path, opened: str) -> None:
    (fault,) = faults(tmp_path, '[scp]\nhost = "0.0.0.0"')
    assert fault.startswith("scp.host: listens beyond this machine")
    assert load(tmp_path, f'[scp]\nhost = "0.0.0.0"\n{opened}').scp.host == "0.0.0.0"


@pytest.mark.parametrize("opened", ['token = "secret"', "allow_unauthenticated = true"])
def test_http_beyond_loopback_needs_a_token_or_an_opt_out(tmp_path: Path, opened: str) -> None:
    assert faults(tmp_path, '[http]\nhost = "::"')[0].startswith("http.host: listens beyond this machine")
    assert load(tmp_path, f'[http]\nhost = "::"\n{opened}').http.host == "::"


def test_an_opt_out_that_says_false_opens_nothing(tmp_path: Path) -> None:
    environ = {"VOXGATE_HTTP__HOST": "0.0.0.0", "VOXGATE_HTTP__ALLOW_UNAUTHENTICATED": "false"}
    assert faults(tmp_path, **environ)[0].startswith("http.host")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_nothing(tmp_path: Path, host: str) -> None:
    assert load(tmp_path, f'[scp]\nhost = "{host}"\n[http]\nhost = "{host}"').http.host == host


def test_secrets_are_in_no_repr_and_in_no_fault(tmp_path: Path) -> None:
    config = load(tmp_path, '[http]\ntoken = "hush"\n[database]\nurl = "postgresql+psycopg://u:hush@h/d"')
    assert "hush" not in repr(config)
    assert config.http.token.get_secret_value() == "hush"
    assert "77123" not in "".join(faults(tmp_path, "[http]\ntoken = 77123"))


def route(engine: str, more: str) -> str:
    return f'[[routes]]\nname = "a"\nengine = "{engine}"\n{more}\n'


NO_PROMPTS = 'the engine "lungs" takes no prompts: leave it out, or name one that does: medsam2'
NO_VOLUMES = 'works on volumes, and unit = "study" on single images: leave one of them out'


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        (route("lungs", "prompts_from_dicom = true"), f"routes[0].prompts_from_dicom: {NO_PROMPTS}"),
        (route("lungs", "prompts_from_dicom = {}"), f"routes[0].prompts_from_dicom: {NO_PROMPTS}"),
        (route("lungs", "prompt = { slice = 1, box = [1, 2, 3, 4] }"), f"routes[0].prompt: {NO_PROMPTS}"),
        (route("lungs", 'unit = "study"'), 'routes[0].unit: "study" is for engines that work on single images, '),
        (route("medsam2", 'unit = "study"\nresample = ["gantry_tilt"]'), f"routes[0]: resample {NO_VOLUMES}"),
        (
            route("medsam2", 'unit = "study"\nprompts_from_dicom = true'),
            f"routes[0]: prompts_from_dicom {NO_VOLUMES}",
        ),
        (
            "[engines.lungs]\nwindow = [-160, 240]",
            "engines.lungs.window: means nothing to lungs, which takes enabled, device, deadline_s: leave it out",
        ),
        ('[engines.medsam2]\norientation = "RAS"', "engines.medsam2.orientation: means nothing to medsam2, which "),
        ("[engines.medversa]\nwindow = [-160, 240]", "engines.medversa.window: means nothing to medversa, which "),
        ('[engines.medsam2]\nprecision = "int8"', "engines.medsam2.precision: must be one of auto, fp32, bf16"),
        (
            "[predict]\nenabled = true\n[http]\nprocesses = 2",
            "http.processes: must be 0 or 1 where predict.enabled is true: each process would hold the models for",
        ),
        ('[predict]\nenabled = true\nengine = "nodul"', 'predict.engine: no engine called "nodul"; known: lungs'),
        (
            "[scp]\nport = 5000",
            "http.port: is scp.port too: choose another for one of them, or run them on two hosts (--role)",
        ),
        ('[store]\npath = ""', "store.path: must name a folder"),
        ('[store]\npath = "a\\u0000b"', "store.path: must name a folder"),
        ('[database]\nurl = "mysql://u:secret@h/d"', "database.url: only postgresql+psycopg:// and sqlite:/// with "),
        ('[database]\nurl = "secret"', "database.url: must be postgresql+psycopg://user:password@host/database"),
        (
            '[database]\nurl = "postgresql://u:secret@h:x/d"',
            "database.url: must be postgresql+psycopg://user:password@host/database",
        ),
        ("destinations = {}", "destinations: must be a list"),
        ("engines = []", "engines: must be a table"),
        (
            "[delivery]\nfirst_retry_s = 7200",
            "delivery: first_retry_s (7200) is above max_retry_s (3600): lower the one or raise the other",
        ),
        (
            "[delivery]\nmax_retry_s = 60\nfirst_retry_s = 61",
            "delivery: first_retry_s (61) is above max_retry_s (60): lower the one or raise the other",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_named_with_the_way_out(tmp_path: Path, toml: str, said: str) -> None:
    file = tmp_path / "voxgate.toml"
    file.write_text(toml)
    with pytest.raises(ConfigurationError) as caught:
        load_config(file, {}, engines=("lungs", "medsam2", "medversa"), together=True)
    (fault,) = [line.strip() for line in str(caught.value).splitlines()[1:]]
    assert fault.startswith(said)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfes\x00", "is not encoded in UTF-8; save it so"),
        (b"\xef\xbb\xbf[scp]", "begins with a byte order mark: save it as UTF-8 without one"),
        (b"x", "not TOML: Expected '='"),
    ],
)
def test_a_file_that_an_editor_has_saved_otherwise_is_told(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "voxgate.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        load_config(file, {}, engines=ENGINES)


def test_a_section_cannot_be_given_as_one_value(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="environment VOXGATE_STORE: name a setting of it, as in VOXGATE_ST"):
        load(tmp_path, VOXGATE_STORE="/srv/store")


def test_the_store_may_be_the_working_folder(tmp_path: Path) -> None:
    assert load(tmp_path, '[store]\npath = "."').store.path == Path()
    assert load(tmp_path, VOXGATE_STORE__PATH=".").store.path == Path()


def test_two_receivers_may_have_one_port_on_two_addresses(tmp_path: Path) -> None:
    assert load(tmp_path, '[scp]\nhost = "127.0.0.2"\nport = 5000').http.port == 5000


def test_what_an_engine_declares_is_a_setting_that_the_configuration_knows() -> None:
    for declared in declarations().values():
        assert set(declared.settings) <= set(EngineSection.model_fields)


def test_an_engine_takes_its_own_settings(tmp_path: Path) -> None:
    toml = """
    [engines.lungs]
    device = "cpu"
    deadline_s = 60
    [engines.deepbet]
    weights = "w"
    [engines.medsam2]
    weights = "w"
    precision = ""
    window = [-160, 240]
    threads = 1
    vram_gb = 4
    cpu_fallback = true
    [engines.medversa]
    weights = "w"
    base_model = "b"
    accept_license = "x"
    precision = "int8"
    orientation = "RAS"
    [[routes]]
    name = "a"
    engine = "medsam2"
    prompts_from_dicom = true
    [[routes]]
    name = "b"
    engine = "medversa"
    unit = "study"
    prompts_from_dicom = false
    prompt = []
    """
    file = tmp_path / "voxgate.toml"
    file.write_text(toml)
    config = load_config(file, {}, engines=("lungs", "deepbet", "medsam2", "medversa"))
    assert config.engines["medsam2"].threads == 1


def test_each_receiver_on_a_host_of_its_own_may_have_the_same_port(tmp_path: Path) -> None:
    assert load(tmp_path, "[scp]\nport = 5000").http.port == 5000
    (tmp_path / "voxgate.toml").write_text("[scp]\nport = 5000")
    both, alone = (
        CliRunner().invoke(app, ["check-config", "--config", str(tmp_path / "voxgate.toml"), *more])
        for more in ((), ("--role", "http"))
    )
    assert isinstance(both.exception, ConfigurationError)
    assert alone.exit_code == 0, alone.output


def test_a_shorter_maximum_alone_shortens_the_first_delay_too(tmp_path: Path) -> None:
    def first_delay_s(toml: str, **environment: str) -> float:
        return DeliverySettings(**load(tmp_path, toml, **environment).delivery.model_dump()).delay_s(1)

    assert first_delay_s("") == 15
    assert first_delay_s("[delivery]\nmax_retry_s = 5") == 5
    assert first_delay_s("", VOXGATE_DELIVERY__MAX_RETRY_S="5") == 5
