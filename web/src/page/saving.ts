/** Hand files to the user. */

export function save(content: BlobPart, name: string, type: string): void {
  const address = URL.createObjectURL(new Blob([content], { type }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  // Some browsers begin to read a while after the click.
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** Return a file's name without what says that it is NIfTI. */
export function stemOf(name: string): string {
  return name.replace(/\.nii(\.gz)?$/i, "");
}
