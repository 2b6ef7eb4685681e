"""The command line: a thin layer over the Python interface. Nothing is decided here."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tersor._version import __version__
from tersor.errors import TersorError
from tersor.format.limits import Limits

SIZE_UNITS = {"": 1, "b": 1, "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9,
              "kib": 2**10, "mib": 2**20, "gib": 2**30}  # fmt: skip


class _Size(click.ParamType[int]):
    """A number of bytes with an optional unit: 5MB, 4.5MiB, 300000."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip().lower().replace("_", "")
        number = text.rstrip("kmgib")
        try:
            return int(float(number) * SIZE_UNITS[text[len(number) :].strip()])
        except (KeyError, ValueError, OverflowError):
            self.fail(f"{value!r} is not a size; examples: 5MB, 4.5MiB, 300000", param, ctx)


class _Share(click.ParamType[float]):
    """A share: 0.5% or 0.005."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip()
        try:
            return float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            self.fail(f"{value!r} is not a share; examples: 0.5%, 0.005", param, ctx)


LIMITS = "Files that ask for absurd sizes are refused; the error names the option that allows more."


def limit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options for every field of `Limits`, under its own name; help leaves them to the errors that ask for them."""
    for field in reversed(dataclasses.fields(Limits)):
        command = click.option(
            f"--limit-{field.name.replace('_', '-')}", type=_Size(), default=field.default, hidden=True
        )(command)
    return command


def _limits(values: dict[str, Any]) -> Limits:
    return Limits(**{name.removeprefix("limit_"): value for name, value in values.items()})


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="tersor")
def cli() -> None:
    """zstd for trained neural networks: a model and a size in, one small file out, the same weights back."""


@cli.command()
@click.argument("source")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="the file to write")
@click.option("--ratio", type=float, help="size of the source's tensors over that of the file, e.g. 8")
@click.option("--size", type=_Size(), help="bytes of the whole file, e.g. 5MB")
@click.option("--bits", type=float, help="bits of the whole file per weight, e.g. 2.5")
@click.option("--lossless", is_flag=True, help="keep every bit")
@click.option("--max-divergence", type=float, help="the smallest file whose outputs are no farther from the "
              "original's, on the inputs of --eval or else on held-out ones of --calibration")  # fmt: skip
@click.option("--max-drop", type=_Share(), help="the smallest file that loses no more of the metric of --eval, "
              "e.g. 0.5%")  # fmt: skip
@click.option("--recipe", metavar="[fast|balanced|best|l2-paper|FILE.toml]", help="fast needs no data; balanced, the "
              "default where there is calibration data, learns from it; best adds gradients; a file changes "
              "settings")  # fmt: skip
@click.option("--calibration", metavar="DATA", help="unlabelled inputs: a folder of images, a text file, or "
              "python:MODULE:FUNCTION")  # fmt: skip
@click.option(
    "--calibration-count", type=click.IntRange(1), default=512, show_default=True, help="inputs to learn from"
)
@click.option("--eval", "evaluation", metavar="DATA", help="measure the finished file on other inputs, or by "
              "python:MODULE:FUNCTION, which returns a number for a module")  # fmt: skip
@click.option("--weights", type=click.Path(), help="file with the state dict of a python: or timm: source")
@click.option("--device", help="where the model runs, e.g. cuda")
@click.option("--seed", type=int, default=0, show_default=True, help="fixes which inputs are held out, and all draws")
@click.option("--method", "method_name", help="instead of a recipe's; see `tersor methods`")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="a setting of the method or recipe; repeatable"
)
@click.option("--nonfinite", type=click.Choice(["keep", "fail"]), default="keep", show_default=True,
              help="tensors with NaN or infinite weights: keep them bit for bit, or stop")  # fmt: skip
@click.option("--workers", type=click.IntRange(1), help="threads; all cores up to 8 by default")
@click.option("--resume", is_flag=True, help="go on where a killed run stopped")
@click.option("--dry-run", is_flag=True, help="predict the file, write nothing")
@click.option("--force", is_flag=True, help="replace an existing output")
@click.option("--json", "as_json", is_flag=True, help="print the report as JSON")
def compress(
    source: str,
    output: Path,
    recipe: str | None,
    method_name: str | None,
    settings: tuple[str, ...],
    as_json: bool,
    force: bool,
    **options: Any,
) -> None:
    """Compress SOURCE (.safetensors, .pt, .pth, .bin, a model folder, timm:NAME or python:MODULE:FACTORY) into one file
    of the asked size."""
    goals = ("ratio", "size", "bits", "max_divergence", "max_drop")
    if sum(options[name] is not None for name in goals) + options["lossless"] != 1:
        raise click.UsageError(
            "give exactly one of --ratio, --size, --bits, --lossless, --max-divergence and --max-drop"
        )
    if method_name and recipe:
        raise click.UsageError("give a recipe or a method")
    from tersor.engine import compress as run
    from tersor.recipe import choose
    from tersor.report import text

    method = choose(recipe, method_name, settings, options["calibration"])
    with text.progress(quiet=as_json) as progress:
        report = run(source, output, method=method, overwrite=force, progress=progress, **options)
    if as_json:
        click.echo(json.dumps(report.to_dict()))
    else:
        text.summary(report, None if options["dry_run"] else output)


@cli.command(epilog=LIMITS)
@click.argument("file", type=click.Path(readable=False, path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="the .safetensors file to write")
@click.option("--force", is_flag=True, help="replace an existing output")
@limit_options
def decompress(file: Path, output: Path, force: bool, **limits: Any) -> None:
    """Decode FILE into a safetensors file."""
    from tersor.runtime import decompress as run

    size = run(file, output, overwrite=force, limits=_limits(limits))
    click.echo(f"{output}: {size:,} bytes")


@cli.command(epilog=LIMITS)
@click.argument("file", type=click.Path(readable=False, path_type=Path))
@click.option("--tensors", is_flag=True, help="a line for every tensor")
@click.option("--json", "as_json", is_flag=True, help="print everything as JSON")
@limit_options
def inspect(file: Path, tensors: bool, as_json: bool, **limits: Any) -> None:
    """What is in FILE: sizes, recipe, measured quality. Reads the manifest only."""
    from tersor.format.reader import TensorFile
    from tersor.report import Report, text

    with TensorFile(file, limits=_limits(limits)) as opened:
        report = Report.of(opened.manifest, opened.nbytes)
    if as_json:
        click.echo(json.dumps(report.to_dict()))
    else:
        text.inspection(report, file, tensors=tensors)


@cli.command(epilog=LIMITS)
@click.argument("file", type=click.Path(readable=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="the .html file to write")
@click.option("--json", "as_json", is_flag=True, help="print everything as JSON")
@click.option("--force", is_flag=True, help="replace an existing output")
@limit_options
def report(file: Path, output: Path | None, as_json: bool, force: bool, **limits: Any) -> None:
    """A page about FILE: bits and zeros by layer, bytes by tensor, recipe. Decodes it whole."""
    if output is None and not as_json:
        raise click.UsageError("give a file to write (-o), or --json, or both")
    from tersor.format.reader import TensorFile
    from tersor.format.writer import atomic_file
    from tersor.report import details, page

    with TensorFile(file, limits=_limits(limits)) as opened:
        summary, tensors = details.measure(opened)
    if output is not None:
        with atomic_file(output, overwrite=force) as out:
            out.write(page.html(summary, tensors, file.name).encode())
    if as_json:
        click.echo(json.dumps(summary.to_dict() | {"details": [part.to_dict() for part in tensors]}))
    else:
        click.echo(f"{output}: {len(summary.tensors):,} tensors")


@cli.command(epilog=LIMITS)
@click.argument("file", type=click.Path(readable=False, path_type=Path))
@limit_options
def verify(file: Path, **limits: Any) -> None:
    """Check all checksums of FILE and decode it whole; the exit status says the result."""
    from tersor.runtime import open as open_file

    with open_file(file, limits=_limits(limits)) as opened:
        opened.verify()
        click.echo(f"{file}: {len(opened):,} tensors, {opened.nbytes:,} bytes, all checksums and digests match")


@cli.command()
@click.argument("a")
@click.argument("b")
@click.option("--json", "as_json", is_flag=True, help="print everything as JSON")
def compare(a: str, b: str, as_json: bool) -> None:
    """Compare two models or files tensor by tensor; exit status 1 unless they are identical."""
    from tersor.comparison import compare as run
    from tersor.report import text

    result = run(a, b)
    if as_json:
        click.echo(json.dumps(result.to_dict()))
    else:
        text.comparison(result)
    if not result.identical:
        sys.exit(1)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="print everything as JSON")
def methods(as_json: bool) -> None:
    """Every method with its settings and their defaults."""
    from tersor.methods import describe
    from tersor.report import text

    if as_json:
        click.echo(json.dumps(describe()))
    else:
        text.methods(describe())


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. Exit status: 0 done, 1 it failed (one line on standard error), 2 wrong usage."""
    try:
        cli.main(args=arguments, prog_name="tersor", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit("tersor: interrupted; the work done so far is kept, --resume goes on from it")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except TersorError as error:
        sys.exit(f"tersor: {error}")
    except MemoryError:
        sys.exit("tersor: out of memory: free some, or compress with fewer --workers")
    except BrokenPipeError:
        sys.exit(1)
