//! Disks that can be full.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::Namespace;

/// Written at once while a disk is being filled: what a small file takes.
const BLOCK: usize = 4_096;

/// A disk of its own in a folder of a host, in memory; it ends with the host.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Mounts an empty disk of so many mebibytes at a folder, which is made.
    pub fn mount(host: &Namespace, folder: &Path, mebibytes: u32) -> Self {
        std::fs::create_dir_all(folder).expect("a temporary folder");
        let size = format!("size={mebibytes}m,mode=0700");
        host.run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &folder.to_string_lossy()]);
        Self { folder: host.path(folder) }
    }

    /// Fills it up to the last block.
    pub fn fill(&self) {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(self.ballast())
            .expect("an empty file fits on a full disk");
        while file.write_all(&[7; BLOCK]).is_ok() {}
    }

    /// Makes room again.
    pub fn free(&self) {
        std::fs::remove_file(self.ballast()).expect("the disk was filled");
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }
}
