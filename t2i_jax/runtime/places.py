"""Where a run lies: a folder, an example that comes with the package, a model of the hub."""

import pathlib

from t2i_jax.runtime.errors import RunError, choose, home, quoted, reason

EXAMPLE, HUB = 'example:', 'hf://'
EXAMPLES = pathlib.Path(__file__).parents[1] / 'examples'
INSTALL = "needs the package huggingface-hub: pip install 't2i_jax[export]'."


def own(workdir) -> bool:
    """Whether a workdir is a folder of the user's, and not an example or of the hub."""
    return not str(workdir).startswith((EXAMPLE, HUB))


def folder_of(workdir) -> pathlib.Path:
    """Return the folder of a run.

    workdir: a path, `example:<name>`, or `hf://<owner>/<name>[@<revision>]`, which is downloaded
    once. Raises RunError for an example or a model that does not exist.
    """
    text = str(workdir)
    if text.startswith(EXAMPLE):
        names = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
        return EXAMPLES / choose('The example', text.removeprefix(EXAMPLE), names)
    if text.startswith(HUB):
        return downloaded(text.removeprefix(HUB))
    return home(workdir)


def hub():
    """Import the package of the hub. Raises RunError where it is not installed."""
    try:
        import huggingface_hub
    except ImportError:
        raise RunError(f'A model of the hub {INSTALL}') from None
    return huggingface_hub


def downloaded(name) -> pathlib.Path:
    """Download a model of the hub, or find the copy of it. Raises RunError."""
    repo, _, revision = name.partition('@')
    if repo.count('/') != 1:
        raise RunError(f'{HUB}{name} names no model: expected {HUB}<owner>/<name>.')
    try:
        return pathlib.Path(hub().snapshot_download(repo, revision=revision or None))
    # it raises its own, and those of the net
    except Exception as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f'{quoted(HUB + name)} cannot be downloaded: {reason(error)}.') from None


def push(folder, repo) -> str:
    """Upload an exported folder as a model -> its address. Raises RunError."""
    if repo.count('/') != 1:
        raise RunError(f'--push={repo} names no model: expected <owner>/<name>.')
    package = hub()
    if not package.get_token():
        raise RunError(
            'The hub takes models of those that it knows: log in with `hf auth login`, or set '
            f'HF_TOKEN. The folder is written: {quoted(folder)}.'
        )
    try:
        package.create_repo(repo, exist_ok=True)
        return str(package.upload_folder(repo_id=repo, folder_path=folder))
    except Exception as error:
        raise RunError(
            f'{repo} cannot be uploaded: {reason(error)}. The folder is written: {quoted(folder)}.'
        ) from None
