"""A population judged as arrays: the same criterion trees and the same answers as one case, for a million of them."""
