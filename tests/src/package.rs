//! Python packages that are built without a network, and a world that can install them.

use crate::repo;
use crate::world::World;
use std::path::Path;

/// A build backend inside the package itself, so that nothing has to be fetched to build it.
const BACKEND: &str = r#"
"""Builds a wheel of one module and nothing else, with the standard library alone."""
import os
import zipfile

NAME, VERSION = "PACKAGE", "1.0.0"


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """One folder and its metadata."""
    folder = NAME.replace("-", "_")
    wheel = "%s-%s-py3-none-any.whl" % (folder, VERSION)
    info = "%s-%s.dist-info" % (folder, VERSION)
    with zipfile.ZipFile(os.path.join(wheel_directory, wheel), "w") as out:
        for name in sorted(os.listdir(folder)):
            if name.endswith(".py"):
                out.write(os.path.join(folder, name))
        out.writestr(info + "/METADATA", "Metadata-Version: 2.1\nName: %s\nVersion: %s\n" % (NAME, VERSION))
        out.writestr(info + "/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        out.writestr(info + "/RECORD", "")
    return wheel
"#;

/// Writes a package whose capability answers with its own name.
pub fn write_package(folder: &Path, name: &str) {
    let module = name.replace('-', "_");
    let inside = folder.join(name).join(&module);
    std::fs::create_dir_all(&inside).expect("a folder");
    let write = |path: &Path, text: &str| std::fs::write(path, text).expect("a file");
    write(
        &folder.join(name).join("pyproject.toml"),
        &format!(
            "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n\n[project]\nname = \"{name}\"\nversion = \"1.0.0\"\ndescription = \"d\"\n"
        ),
    );
    write(&folder.join(name).join("backend.py"), &BACKEND.replace("PACKAGE", name));
    write(&inside.join("__init__.py"), "\"\"\"A package.\"\"\"\n");
    write(
        &inside.join("capability.py"),
        &format!(
            "from cjm_sdk import Capability, action\n\n\nclass Tool(Capability):\n    name = \"{name}\"\n    version = \"1.0.0\"\n\n    @action\n    def who(self, begin: str = \"I am\"):\n        return begin + \" {name}\"\n"
        ),
    );
}

/// A world whose commands find uv; None, said loudly, where it cannot be had.
#[must_use]
pub fn world_with_uv(test: &str) -> Option<World> {
    let mut world = World::new();
    match world.offer_uv() {
        Ok(()) => Some(world),
        Err(error) => {
            repo::skip(test, &error);
            None
        }
    }
}
