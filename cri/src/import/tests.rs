use std::path::Path;

use super::*;

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, data) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *data).unwrap();
    }
    tar.into_inner().unwrap()
}

fn on_disk(name: &str, bytes: &[u8]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("keelson-cri-{}-{name}", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn docker_archive_has_the_same_blobs_as_the_layer_itself() {
    let layer = tar_of(&[("hello", b"world")]);
    let built = Image::from_layer("example.org/a:1", &ImageConfig::default(), layer.clone());
    let manifest = br#"[{"Config":"c.json","RepoTags":["example.org/a:1"],"Layers":["l/layer.tar"]}]"#;
    let path =
        on_disk("docker.tar", &tar_of(&[("manifest.json", manifest), ("c.json", b"{}"), ("l/layer.tar", &layer)]));
    let images = read_archive(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let [image] = images.as_slice() else { panic!("one image, not {}", images.len()) };
    assert_eq!(image.names, ["example.org/a:1"]);
    assert_eq!(image.layers[0].digest, built.layers[0].digest);
    assert_eq!(image.layers[0].media_type, "application/vnd.oci.image.layer.v1.tar");
    assert_eq!(image.gc_labels()["containerd.io/gc.ref.content.l.0"], built.layers[0].digest);
}

#[test]
fn compressed_layers_are_told_by_their_first_bytes() {
    let manifest = br#"[{"Config":"c","RepoTags":null,"Layers":["z"]}]"#;
    let path = on_disk("gzip.tar", &tar_of(&[("manifest.json", manifest), ("c", b"{}"), ("z", &[0x1f, 0x8b, 8, 0])]));
    let images = read_archive(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(images[0].names.is_empty());
    assert_eq!(images[0].layers[0].media_type, "application/vnd.oci.image.layer.v1.tar+gzip");
}

#[test]
fn what_is_no_archive_is_named() {
    let path = on_disk("none.tar", &tar_of(&[("README", b"hello")]));
    let error = read_archive(&path).unwrap_err().to_string();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(error, format!("{} is no image archive: it has neither manifest.json nor index.json", path.display()));
    let missing = Path::new("/nonexistent/a.tar");
    assert!(matches!(read_archive(missing).unwrap_err(), ImportError::Read { path, .. } if path == missing));
}

#[tokio::test]
async fn blobs_are_read_back_in_chunks() {
    let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let blob = image::Blob::memory("x", bytes.clone());
    let chunks = Reader::chunks(blob.open().unwrap()).collect::<Vec<_>>().await;
    assert_eq!(chunks.iter().map(|c| c.0).collect::<Vec<_>>(), [0, 1_048_576, 2_097_152]);
    assert_eq!(chunks.concat_data(), bytes);
}

trait ConcatData {
    fn concat_data(&self) -> Vec<u8>;
}

impl ConcatData for Vec<(u64, Vec<u8>)> {
    fn concat_data(&self) -> Vec<u8> {
        self.iter().flat_map(|c| c.1.clone()).collect()
    }
}
