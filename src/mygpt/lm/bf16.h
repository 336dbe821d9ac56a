/* bfloat16 and vectors of it, for processors with AVX-512 BF16. float32.h has the same names for float. */
#pragma once

#include "vectors.h"

typedef uint16_t bf16;
typedef bf16 real;
enum { WIDE = 32 }; /* of them in a vector */

INLINE __m512 widen(const bf16 *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}

INLINE void narrow(bf16 *to, __m512 x) { _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh(x)); }

INLINE float one(bf16 x) {
    const union { uint32_t i; float f; } u = {(uint32_t)x << 16};
    return u.f;
}

/* sum + a[i] b[i] for the next WIDE numbers of each */
INLINE __m512 add_products(__m512 sum, const bf16 *a, const bf16 *b) {
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_loadu_si512(a), (__m512bh)_mm512_loadu_si512(b));
}
