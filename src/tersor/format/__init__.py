"""The file: layout, manifest, reader, writer, limits. Specified in spec/FORMAT.md; torch-free."""
