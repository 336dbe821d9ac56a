/* The products of tile_products.h in float32, under the same names, for processors with AVX-512.

   y' = W x', by dot products along K: a vector holds sixteen neighbours of a row of W as they lie in memory, so that with few rows of x no lane is idle. Four
   rows of W meet four of x at a time: sixteen sums of sixteen parts each, the parts added up at the end. Activations are packed in blocks of sixteen rows
   and sixteen columns, [tile][K / 16][16 rows][16]. A row's sums run in one order, whatever runs beside it, on however many threads.

   Dims: K width of x (a multiple of 16), F width of y (a multiple of 16), tiles: of sixteen rows of x. */

#pragma once

#include "float32.h"

enum { MOST_TILES = 8, FOUR = 4 };

/* a block of sixteen rows and sixteen columns of what is packed: x[column] has the rows side by side */
INLINE void turn(__m512 *to, const __m512 *from) {
    __m512i x[SIDE];
    for (int i = 0; i < SIDE; i++) x[i] = _mm512_castps_si512(from[i]);
    transpose(x);
    for (int i = 0; i < SIDE; i++) to[i] = _mm512_castsi512_ps(x[i]);
}
INLINE void read_block(__m512 *x, const float *block) { turn(x, (const __m512 *)block); }
INLINE void write_block(float *block, const __m512 *x) { turn((__m512 *)block, x); }

/* rows (N, K), `stride` apart, packed, with zeros behind them to the end of a tile; and the other way round */
static inline void pack(float *packed, const float *rows, int64_t stride, int64_t N, int64_t K) {
    for (int64_t n = 0; n < (N + SIDE - 1) / SIDE * SIDE; n++)
        for (int64_t k = 0; k < K; k += SIDE)
            _mm512_store_ps(packed + (n / SIDE * K + k + n % SIDE) * SIDE, n < N ? _mm512_loadu_ps(rows + n * stride + k) : _mm512_setzero_ps());
}

static inline void unpack(float *rows, const float *packed, int64_t N, int64_t K) {
    for (int64_t n = 0; n < N; n++)
        for (int64_t k = 0; k < K; k += SIDE) _mm512_storeu_ps(rows + n * K + k, _mm512_load_ps(packed + (n / SIDE * K + k + n % SIDE) * SIDE));
}

/* lane i: all lanes of x[i], summed */
INLINE __m512 sums_of(const __m512 *x) {
    __m512 a[8], b[4], c[2];
    for (int i = 0; i < 8; i++) a[i] = _mm512_add_ps(_mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]), _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]));
    for (int i = 0; i < 4; i++) {
        const __m512d even = _mm512_castps_pd(a[2 * i]), odd = _mm512_castps_pd(a[2 * i + 1]);
        b[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(even, odd)), _mm512_castpd_ps(_mm512_unpackhi_pd(even, odd)));
    }
    for (int i = 0; i < 2; i++)
        c[i] = _mm512_add_ps(_mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0x88), _mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(c[0], c[1], 0x88), _mm512_shuffle_f32x4(c[0], c[1], 0xdd));
}

/* four rows of W against `rows` of x; sums of the others are 0. `share` numbers from `ahead` on are fetched with every sixteen columns */
INLINE void by_fours(float *made, const int64_t width, const int rows, const float *w, int64_t K, const float *x, const float *ahead, int64_t share) {
    __m512 sum[FOUR * FOUR];
    for (int i = 0; i < FOUR * FOUR; i++) sum[i] = _mm512_setzero_ps();
    for (int64_t k = 0; k < K; k += SIDE) {
        __m512 part[FOUR];
        for (int r = 0; r < FOUR; r++) part[r] = _mm512_loadu_ps(w + r * K + k);
        for (int i = 0; i < rows; i++) {
            const __m512 row = _mm512_load_ps(x + (k + i) * SIDE);
            for (int r = 0; r < FOUR; r++) sum[r * FOUR + i] = _mm512_fmadd_ps(part[r], row, sum[r * FOUR + i]);
        }
        for (int64_t f = 0; f < share; f += SIDE) _mm_prefetch((const char *)(ahead + f), _MM_HINT_T1);
        ahead += share;
    }
    const __m512 sums = sums_of(sum);
    _mm_store_ps(made, _mm512_extractf32x4_ps(sums, 0));
    _mm_store_ps(made + width, _mm512_extractf32x4_ps(sums, 1));
    _mm_store_ps(made + 2 * width, _mm512_extractf32x4_ps(sums, 2));
    _mm_store_ps(made + 3 * width, _mm512_extractf32x4_ps(sums, 3));
}

/* sixteen rows of W against N packed rows: made is (16, 16 * tiles). `ahead` is what will be wanted next, fetched meanwhile, as much in each pass (in the first
   alone it is waited for: 16 rows then take a third longer). There are no tiles for float32 */
static inline void sixteen(float *made, const float *w, int64_t K, const float *packed, int64_t N, const float *ahead, int has_tiles) {
    const int64_t width = (N + SIDE - 1) / SIDE * SIDE, passes = (N + FOUR - 1) / FOUR * FOUR, share = ahead ? (SIDE * SIDE + passes - 1) / passes : 0;
    for (int64_t n = 0; n < width; n += FOUR) {
        const float *x = packed + (n / SIDE * K + n % SIDE) * SIDE;
        for (int r = 0; r < SIDE; r += FOUR) {
            float *to = made + r * width + n;
            const float *from = w + r * K;
            switch (N - n) { /* so that the compiler keeps each in registers */
            case 1: by_fours(to, width, 1, from, K, x, ahead, share); break;
            case 2: by_fours(to, width, 2, from, K, x, ahead, share); break;
            case 3: by_fours(to, width, 3, from, K, x, ahead, share); break;
            default:
                if (n < N) by_fours(to, width, FOUR, from, K, x, ahead, share);
                else
                    for (int i = 0; i < FOUR; i++) _mm_store_ps(to + i * width, _mm_setzero_ps());
            }
            ahead += share * K / SIDE;
        }
    }
}

static inline int ask_for_tiles(void) { return 0; }
INLINE void begin_tiles(int has_tiles) {}
INLINE void end_tiles(int has_tiles) {}
