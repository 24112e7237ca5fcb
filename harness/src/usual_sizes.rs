//! The sizes that people make videos in.

/// The largest first; of each two the first that a model can is meant.
pub(crate) const USUAL_SIZES: [[&str; 2]; 6] = [
    ["3840x2176", "3840x2176"],
    ["2560x1440", "2560x1408"],
    ["1920x1088", "1920x1088"],
    ["1280x720", "1280x704"],
    ["832x480", "832x480"],
    ["640x384", "640x384"],
];
