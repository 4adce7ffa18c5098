//! Unmodified distribution kernels boot.

use tests::{Kernel, setup};

tests::on_every_kernel!(boots);

fn boots(kernel: &Kernel) {
    let ballast = setup();
    let run = ballast.run("busybox", &["uname", "-r"]).options(kernel.options());
    run.end().exits(0).prints(&format!("{}\n", kernel.release));
}
