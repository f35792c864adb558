//! The image service of the runtime in memory. A pull succeeds for every name but those with `missing` in them; one of a
//! name with `private` in it needs the password `right`.

use tonic::{Request, Response, Status};

use super::Fake;
use crate::v1::{self, image_service_server::ImageService};

type Answer<T> = Result<Response<T>, Status>;

fn image(name: &str) -> v1::Image {
    let names = vec![name.to_owned()];
    let (repo_digests, repo_tags) = if name.contains('@') { (names, Vec::new()) } else { (Vec::new(), names) };
    v1::Image { id: format!("sha256:{name}"), repo_tags, repo_digests, size: 1000, ..v1::Image::default() }
}

/// The name that a reference is or has as its id.
pub(super) fn name_of(reference: &str) -> &str {
    reference.strip_prefix("sha256:").unwrap_or(reference)
}

/// What the registry says.
fn pulled(name: &str, password: &str) -> Result<(), Status> {
    if name.contains("missing") {
        return Err(Status::not_found(format!("failed to pull and unpack image {name:?}: not found")));
    }
    if name.contains("private") && password != "right" {
        return Err(Status::unknown(format!("failed to pull and unpack image {name:?}: authorization failed")));
    }
    Ok(())
}

#[tonic::async_trait]
impl ImageService for Fake {
    async fn list_images(&self, _: Request<v1::ListImagesRequest>) -> Answer<v1::ListImagesResponse> {
        let mut state = self.lock();
        state.log("ListImages", "");
        Ok(Response::new(v1::ListImagesResponse { images: state.images.iter().map(|n| image(n)).collect() }))
    }

    async fn image_status(&self, request: Request<v1::ImageStatusRequest>) -> Answer<v1::ImageStatusResponse> {
        let name = request.into_inner().image.map(|i| i.image).unwrap_or_default();
        let mut state = self.lock();
        state.log("ImageStatus", &name);
        let image = state.images.get(name_of(&name)).map(|n| image(n));
        Ok(Response::new(v1::ImageStatusResponse { image, ..v1::ImageStatusResponse::default() }))
    }

    async fn pull_image(&self, request: Request<v1::PullImageRequest>) -> Answer<v1::PullImageResponse> {
        let request = request.into_inner();
        let name = request.image.map(|i| i.image).unwrap_or_default();
        let password = request.auth.map(|auth| auth.password).unwrap_or_default();
        let (verdict, answer) = {
            let mut state = self.lock();
            state.log("PullImage", &name);
            let verdict = state.effect();
            let answer = pulled(&name, &password);
            if !verdict.prevents() && answer.is_ok() {
                state.images.insert(name.clone());
            }
            (verdict, answer)
        };
        verdict.seen(answer).await?;
        Ok(Response::new(v1::PullImageResponse { image_ref: format!("sha256:{name}") }))
    }

    async fn remove_image(&self, request: Request<v1::RemoveImageRequest>) -> Answer<v1::RemoveImageResponse> {
        let name = request.into_inner().image.map(|i| i.image).unwrap_or_default();
        let mut state = self.lock();
        state.log("RemoveImage", &name);
        state.images.remove(name_of(&name));
        Ok(Response::new(v1::RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<v1::ImageFsInfoRequest>) -> Answer<v1::ImageFsInfoResponse> {
        Ok(Response::new(v1::ImageFsInfoResponse::default()))
    }
}
