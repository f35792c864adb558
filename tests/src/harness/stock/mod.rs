//! The stock components of Kubernetes as parts of a cluster, beside or instead of ours.
//!
//! | file | does |
//! |---|---|
//! | `control_plane` | etcd, kube-apiserver, kube-controller-manager, kube-scheduler, with certificates and tokens made by kubeadm |
//! | `node` | kubelet, kube-proxy and the reference CNI plugins, joined by bootstrap token as kubeadm does it |

mod control_plane;
mod node;
