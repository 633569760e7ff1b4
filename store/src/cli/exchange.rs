//! `import`, `export`: between the store and files.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use teu_store::archive::{
    self, Change, ExportFormat, ExportOptions, ImportFormat, ImportOptions, Input,
};
use teu_store::image::Platform;
use teu_store::{Reference, Store};

use super::Outcome;
use super::transfer::{Failed, ProgressArgs, print_result};

/// Take images out of a file, a directory or standard input
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// An OCI layout (directory or tar), a docker archive or a tar of a root filesystem, plain, gzip or zstd; - for standard input
    file: PathBuf,
    /// Name for the image; archives name theirs themselves
    name: Option<Reference>,
    /// What the file is
    #[arg(long, value_enum, default_value = "auto")]
    format: ImportName,
    /// Which image of several, or what a root filesystem is for, as OS/ARCH[/VARIANT] [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// How a root filesystem runs, as a Dockerfile says it: 'CMD ["sh"]', 'ENV A=b'; may be repeated
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<Change>,
    #[command(flatten)]
    progress: ProgressArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ImportName {
    /// Found out from the content
    Auto,
    /// OCI layout as a directory
    OciDir,
    /// OCI layout as a tar
    OciArchive,
    /// What `docker save` writes
    DockerArchive,
    /// Tar of a root filesystem
    Rootfs,
}

impl Import {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        let input = if self.file.as_os_str() == "-" {
            Input::Stdin
        } else {
            Input::Path(self.file.clone())
        };
        let options = ImportOptions {
            format: match self.format {
                ImportName::Auto => None,
                ImportName::OciDir => Some(ImportFormat::OciDir),
                ImportName::OciArchive => Some(ImportFormat::OciArchive),
                ImportName::DockerArchive => Some(ImportFormat::DockerArchive),
                ImportName::Rootfs => Some(ImportFormat::Rootfs),
            },
            platform: self.platform.unwrap_or_else(Platform::host),
            changes: self.change,
        };
        let progress = self.progress.progress();
        let imported = archive::import(store, &input, self.name.as_ref(), &options, &progress)
            .map_err(|source| Failed::new("import", self.file.display(), source))?;
        for image in imported {
            print_result(&image.name, &image.digest)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Write images into a file or a directory
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Names or ids of images of the store
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// What to write
    #[arg(long, value_enum, default_value = "oci-archive")]
    format: ExportName,
    /// File or new directory to write; - for standard output
    #[arg(short, long, value_name = "PATH", default_value = "-")]
    output: PathBuf,
    /// Write layers that are kept as plain tars as they are, so that no digest changes
    #[arg(long)]
    preserve_digests: bool,
    #[command(flatten)]
    progress: ProgressArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ExportName {
    /// OCI layout as a directory
    OciDir,
    /// OCI layout as a tar
    OciArchive,
    /// What `docker load` and `podman load` read
    DockerArchive,
}

impl Export {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        let options = ExportOptions {
            format: match self.format {
                ExportName::OciDir => ExportFormat::OciDir,
                ExportName::OciArchive => ExportFormat::OciArchive,
                ExportName::DockerArchive => ExportFormat::DockerArchive,
            },
            output: Some(self.output).filter(|path| path.as_os_str() != "-"),
            preserve_digests: self.preserve_digests,
        };
        let progress = self.progress.progress();
        archive::export(store, &self.images, &options, &progress)
            .map_err(|source| Failed::new("export", self.images.join(" "), source))?;
        Ok(ExitCode::SUCCESS)
    }
}
