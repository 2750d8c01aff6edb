"""ServingValidator: gate 4, a real model server answers real rows before a version is published."""
