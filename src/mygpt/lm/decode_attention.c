/* Attention of a few queries over many cached keys, for processors with AVX-512. Compiled on the user's machine, once for each format (decode_attention.py).

   A decoding step reads every cached key and value once and computes little with them, so it should take as long as reading takes. The matrix
   products of the libraries are made for larger pieces: at 3 queries a head they spend most of their time on setting up.

   Dims: B sequences, H key/value heads, R queries of a head (heads of its group x new tokens), S keys, D head size (a multiple of 32, at most 128).
   All but the scores are of one format; scores, softmax and sums are float32. Strides count elements; D is contiguous everywhere.
   The mask (B, R / G, S), added to the scores, is shared by the G heads of a group; query r of a head is head r / Q, token r % Q. */

#include <stdlib.h>
#include <string.h>

#include NUMBERS /* bf16.h or float32.h: the format, `real` */

#include "attention_head.h"

/* 0 when done; 1 when there was no memory for the scores of a head. out is (B, Q, H * G, D), contiguous; q is (B, H * G, Q, D). */
int decode_attention(real *out, const real *q, const real *k, const real *v, const real *mask, int64_t B, int64_t H, int64_t G, int64_t Q,
                     int64_t S, int64_t D, int64_t q_b, int64_t q_h, int64_t q_q, int64_t k_b, int64_t k_h, int64_t k_s, int64_t v_b,
                     int64_t v_h, int64_t v_s, int64_t mask_b, int64_t mask_q, float scale, int threads) {
    const int64_t R = G * Q, S_padded = (S + 15) / 16 * 16;
    int failed = 0;
#pragma omp parallel num_threads(threads)
    {
        float *scores = aligned_alloc(64, (size_t)(AT_ONCE * S_padded) * sizeof(float));
        float mixed[AT_ONCE * MOST_D];
        real queries[AT_ONCE * MOST_D];
        if (!scores) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(static)
        for (int64_t bh = 0; bh < B * H; bh++) {
            const int64_t b = bh / H, h = bh % H;
            for (int64_t first = 0; scores && first < R; first += AT_ONCE) {
                const int rows = (int)(R - first < AT_ONCE ? R - first : AT_ONCE);
                const real *masks[AT_ONCE];
                for (int r = 0; r < rows; r++) {
                    const int64_t head = h * G + (first + r) / Q, token = (first + r) % Q;
                    memcpy(queries + r * D, q + b * q_b + head * q_h + token * q_q, (size_t)D * sizeof(real));
                    masks[r] = mask ? mask + b * mask_b + token * mask_q : 0;
                }
                attend(mixed, scores, rows, queries, k + b * k_b + h * k_h, k_s, v + b * v_b + h * v_h, v_s, masks, 0, S, (int)D, scale);
                for (int r = 0; r < rows; r++) {
                    real *to = out + ((b * Q + (first + r) % Q) * H * G + h * G + (first + r) / Q) * D;
                    for (int64_t d = 0; d < D; d += 16) narrow(to + d, _mm512_loadu_ps(mixed + r * D + d));
                }
            }
        }
        free(scores);
    }
    return failed;
}
