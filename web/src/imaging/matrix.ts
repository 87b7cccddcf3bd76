/** Small matrices, vectors in millimetres, and NumPy's rounding. */

import { eachAxis, type Grid, type Matrix4, type Vector } from "./volume";

type Rows = readonly (readonly number[])[];

export function diagonal([x, y, z]: Vector, shift: Vector = [0, 0, 0]): Matrix4 {
  const linear = [
    [x, 0, 0],
    [0, y, 0],
    [0, 0, z],
  ];
  return joined(linear, shift);
}

/** The matrix of a (3, 3) rotation or stretch and a shift. */
export function joined(linear: Rows, shift: Vector): Matrix4 {
  return [...eachAxis((row) => [...linear[row]!.slice(0, 3), shift[row]!]), [0, 0, 0, 1]];
}

export function product(a: Rows, b: Rows): number[][] {
  return a.map((row) =>
    b[0]!.map((_, column) => row.reduce((sum, value, index) => sum + value * b[index]![column]!, 0)),
  );
}

function identity(n: number): number[][] {
  return Array.from({ length: n }, (_, row) => Array.from({ length: n }, (__, column) => +(row === column)));
}

function transpose(a: Rows): number[][] {
  return a[0]!.map((_, column) => a.map((row) => row[column]!));
}

export function apply(matrix: Matrix4, [x, y, z]: Readonly<Vector>): Vector {
  return eachAxis((axis) => {
    const row = matrix[axis]!;
    return row[0]! * x + row[1]! * y + row[2]! * z + row[3]!;
  });
}

export function inverse(matrix: Rows): number[][] {
  return transpose(identity(matrix.length).map((column) => solve(matrix, column)));
}

/** Solve a @ x = b by elimination with the largest pivot of each column. */
export function solve(a: Rows, b: readonly number[]): number[] {
  const n = b.length;
  const rows = a.map((row, index) => [...row, b[index]!]);
  for (let column = 0; column < n; column++) {
    let pivot = column;
    for (let row = column + 1; row < n; row++) {
      if (Math.abs(rows[row]![column]!) > Math.abs(rows[pivot]![column]!)) pivot = row;
    }
    [rows[column], rows[pivot]] = [rows[pivot]!, rows[column]!];
    const top = rows[column]!;
    for (let row = column + 1; row < n; row++) {
      const factor = rows[row]![column]! / top[column]!;
      if (factor === 0) continue;
      for (let k = column; k <= n; k++) rows[row]![k]! -= factor * top[k]!;
    }
  }
  const x = new Array<number>(n).fill(0);
  for (let row = n - 1; row >= 0; row--) {
    let rest = rows[row]![n]!;
    for (let k = row + 1; k < n; k++) rest -= rows[row]![k]! * x[k]!;
    x[row] = rest / rows[row]![row]!;
  }
  return x;
}

export function determinant(m: Rows): number {
  const [a, b, c] = m as [number[], number[], number[]];
  return (
    a[0]! * (b[1]! * c[2]! - b[2]! * c[1]!) -
    a[1]! * (b[0]! * c[2]! - b[2]! * c[0]!) +
    a[2]! * (b[0]! * c[1]! - b[1]! * c[0]!)
  );
}

export function voxelSizes(affine: Matrix4): Vector {
  const squares = upperLeft(affine).map((row) => row.map((value) => value ** 2));
  return eachAxis((column) => Math.sqrt(squares.reduce((sum, row) => sum + row[column]!, 0)));
}

/** Directions of the voxel axes, of length 1: (3, 3). */
export function unitAxes(affine: Matrix4): number[][] {
  const zooms = voxelSizes(affine);
  return upperLeft(affine).map((row) => row.map((value, column) => value / zooms[column]!));
}

/** Smallest box in world mm that holds all voxel centres, and `margin` voxels around them. */
export function boundsOf({ shape, affine }: Grid, margin = 0): [Vector, Vector] {
  const corners = Array.from({ length: 8 }, (_, corner) =>
    apply(
      affine,
      eachAxis((axis) => ((corner >> axis) & 1 ? shape[axis]! - 1 + margin : -margin)),
    ),
  );
  const ends = (end: (...values: number[]) => number) =>
    eachAxis((axis) => end(...corners.map((corner) => corner[axis]!)));
  return [ends(Math.min), ends(Math.max)];
}

/** Singular values of the upper left (3, 3), descending. */
export function singularValues(matrix: Rows): number[] {
  const linear = upperLeft(matrix);
  const { values } = symmetricEigen(product(transpose(linear), linear));
  return values.map((value) => Math.sqrt(Math.max(value, 0))).sort((a, b) => b - a);
}

/** The rotation (with a mirror if there is one) closest to the upper left (3, 3): its polar factor. */
export function closestRotation(matrix: Rows): number[][] {
  const linear = upperLeft(matrix);
  const { values, vectors } = symmetricEigen(product(transpose(linear), linear));
  const unstretched = values.map((value, index) => vectors[index]!.map((entry) => entry / Math.sqrt(value)));
  return product(linear, product(transpose(unstretched), vectors));
}

/** Eigenvalues and eigenvectors (one a row) of a small symmetric matrix, by Jacobi rotations, in no order. */
export function symmetricEigen(matrix: Rows): { values: number[]; vectors: number[][] } {
  const n = matrix.length;
  const a = matrix.map((row) => [...row]);
  const vectors = identity(n);
  for (let sweep = 0; sweep < 60; sweep++) {
    let rest = 0;
    for (let p = 0; p < n; p++) for (let q = p + 1; q < n; q++) rest += a[p]![q]! ** 2;
    if (rest === 0) break;
    for (let p = 0; p < n; p++) {
      for (let q = p + 1; q < n; q++) {
        if (a[p]![q]! === 0) continue;
        const theta = (a[q]![q]! - a[p]![p]!) / (2 * a[p]![q]!);
        const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
        const c = 1 / Math.sqrt(t * t + 1);
        const s = t * c;
        const turn = (pair: (k: number) => [number[], number, number[], number]) => {
          for (let k = 0; k < n; k++) {
            const [first, i, second, j] = pair(k);
            [first[i], second[j]] = [c * first[i]! - s * second[j]!, s * first[i]! + c * second[j]!];
          }
        };
        turn((k) => [a[k]!, p, a[k]!, q]);
        turn((k) => [a[p]!, k, a[q]!, k]);
        turn((k) => [vectors[p]!, k, vectors[q]!, k]);
        a[p]![q] = a[q]![p] = 0;
      }
    }
  }
  return { values: a.map((row, index) => row[index]!), vectors };
}

/** Turn about x, then about y, then about z, by degrees: (3, 3). */
export function rotationByDegrees([x, y, z]: readonly number[]): number[][] {
  const about = (degrees: number, first: number, second: number): number[][] => {
    const [c, s] = [Math.cos((degrees * Math.PI) / 180), Math.sin((degrees * Math.PI) / 180)];
    const turn = identity(3);
    turn[first]![first] = turn[second]![second] = c;
    turn[first]![second] = -s;
    turn[second]![first] = s;
    return turn;
  };
  return product(about(z!, 0, 1), product(about(y!, 2, 0), about(x!, 1, 2)));
}

/** Turn about a vector by its length in radians: (3, 3), through a unit quaternion. */
export function rotationByVector([x, y, z]: Vector): number[][] {
  const angle = Math.sqrt(x * x + y * y + z * z);
  const half = angle < 1e-3 ? 0.5 - angle ** 2 / 48 + angle ** 4 / 3840 : Math.sin(angle / 2) / angle;
  return rotationOfQuaternion([Math.cos(angle / 2), half * x, half * y, half * z]);
}

/** (3, 3) of a quaternion w, x, y, z of any length but 0. */
export function rotationOfQuaternion([w, x, y, z]: readonly [number, number, number, number]): number[][] {
  const s = 2 / (w * w + x * x + y * y + z * z);
  return [
    [1 - s * (y * y + z * z), s * (x * y - w * z), s * (x * z + w * y)],
    [s * (x * y + w * z), 1 - s * (x * x + z * z), s * (y * z - w * x)],
    [s * (x * z - w * y), s * (y * z + w * x), 1 - s * (x * x + y * y)],
  ];
}

export function upperLeft(matrix: Rows): number[][] {
  return matrix.slice(0, 3).map((row) => row.slice(0, 3));
}

/** Round to the nearest whole number, halves to the even one. */
export function roundHalfEven(value: number): number {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return rest < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}

export function roundedIndex(value: number): number {
  return roundHalfEven(value * 1e9) / 1e9;
}
