//! A small convolutional classifier, trained on the data that samples are judged by: its hidden
//! layer gives features, its softmax the Inception score, its last map spatial features. So
//! distances mean something for any labelled data, with no network to download.
//!
//! Forward and backward are written on [`Backend`](dis_tensor::Backend), like the models themselves.

mod conv;
mod file;
mod network;
#[cfg(test)]
mod tests;
mod training;

pub use file::{Classifier, ClassifierInfo, Outputs};
pub use network::{Activations, ClassifierConfig, ClassifierNet, SavedClassifier};
pub use training::{ClassifierOptions, train_classifier};
