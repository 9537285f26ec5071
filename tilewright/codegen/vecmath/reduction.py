"""x - n pi/2 for one f64 of any size, as LLVM IR: integer arithmetic with enough digits of 2/pi.

|x| is M 2^E with an integer M of 53 bits. Digits of 2/pi that M 2^E turns into multiples of four
say nothing about the angle; the next 192 are enough for every f64. Their product with M is a fixed
point number: two bits of quadrant, then the fraction, which is scaled to full precision before it
is multiplied by pi/2 and becomes a sum of two f64.
"""

from __future__ import annotations

DIGITS = (
    0, 11743562013128004905, 18169587780923219392, 15808362127397457985, 18325537948574664033,
    13196794004601950944, 452944820249399836, 18311050168422213438, 16754012890938950788,
    16833452818741296705, 4148332274289687028, 11278244420634880059, 2303758334597371919,
    17235013589178936607, 7869616827067468215, 5712322887342352941, 8441921394348257659,
    4397547296490951402, 7780917995555872008, 6197850593633725355,
)
"""The binary digits of 2/pi, 64 to a word, the highest first, after a word of zeros."""

HALF_PI = 14488038916154245684 << 64 | 14179128828124470481
"""pi/2 2^127, rounded down."""

REDUCE = f"""
@tw.two_over_pi = private unnamed_addr constant [{len(DIGITS)} x i64] [
  {", ".join(f"i64 {word}" for word in DIGITS)}]

define internal {{ double, double, i64 }} @tw.reduce(double %x) noinline {{
  %bits = bitcast double %x to i64
  %field = lshr i64 %bits, 52
  %exponent = and i64 %field, 2047
  %signed = icmp slt i64 %bits, 0
  %fraction = and i64 %bits, {(1 << 52) - 1}
  %mantissa = or i64 %fraction, {1 << 52}
  %first = sub i64 %exponent, {1075 + 2 - 64}
  %word = lshr i64 %first, 6
  %shift = and i64 %first, 63
  %p0 = getelementptr i64, ptr @tw.two_over_pi, i64 %word
  %p1 = getelementptr i64, ptr %p0, i64 1
  %p2 = getelementptr i64, ptr %p0, i64 2
  %p3 = getelementptr i64, ptr %p0, i64 3
  %t0 = load i64, ptr %p0
  %t1 = load i64, ptr %p1
  %t2 = load i64, ptr %p2
  %t3 = load i64, ptr %p3
  %w0 = call i64 @llvm.fshl.i64(i64 %t0, i64 %t1, i64 %shift)
  %w1 = call i64 @llvm.fshl.i64(i64 %t1, i64 %t2, i64 %shift)
  %w2 = call i64 @llvm.fshl.i64(i64 %t2, i64 %t3, i64 %shift)
  %wide = zext i64 %mantissa to i128
  %wide1 = zext i64 %w1 to i128
  %wide2 = zext i64 %w2 to i128
  %high = mul i64 %mantissa, %w0
  %high.wide = zext i64 %high to i128
  %high.part = shl i128 %high.wide, 64
  %middle = mul i128 %wide, %wide1
  %low = mul i128 %wide, %wide2
  %low.part = lshr i128 %low, 64
  %sum = add i128 %high.part, %middle
  %turns = add i128 %sum, %low.part
  %quadrant.wide = lshr i128 %turns, 126
  %quadrant = trunc i128 %quadrant.wide to i64
  %part = shl i128 %turns, 2
  %past = icmp slt i128 %part, 0
  %past.one = zext i1 %past to i64
  %n = add i64 %quadrant, %past.one
  %minus = sub i128 0, %part
  %size = select i1 %past, i128 %minus, i128 %part
  %zeros.wide = call i128 @llvm.ctlz.i128(i128 %size, i1 false)
  %zeros.all = trunc i128 %zeros.wide to i64
  %zeros = and i64 %zeros.all, 127
  %zeros.count = zext i64 %zeros to i128
  %full = shl i128 %size, %zeros.count
  %top = lshr i128 %full, 64
  %rest = and i128 %full, {(1 << 64) - 1}
  %a = mul i128 %top, {HALF_PI >> 64}
  %b = mul i128 %top, {HALF_PI & ((1 << 64) - 1)}
  %c = mul i128 %rest, {HALF_PI >> 64}
  %b.part = lshr i128 %b, 64
  %c.part = lshr i128 %c, 64
  %a.b = add i128 %a, %b.part
  %angle = add i128 %a.b, %c.part
  %upper = lshr i128 %angle, 75
  %upper.bits = trunc i128 %upper to i64
  %upper.float = sitofp i64 %upper.bits to double
  %lower = lshr i128 %angle, 12
  %lower.word = trunc i128 %lower to i64
  %lower.bits = and i64 %lower.word, {(1 << 63) - 1}
  %lower.float = sitofp i64 %lower.bits to double
  %power = sub i64 1023, %zeros
  %negative = xor i1 %past, %signed
  %sign = select i1 %negative, i64 2048, i64 0
  %power.signed = or i64 %power, %sign
  %scale.bits = shl i64 %power.signed, 52
  %scale = bitcast i64 %scale.bits to double
  %upper.scale = fmul double %scale, 0x{(1023 - 52) << 52:016X}
  %lower.scale = fmul double %scale, 0x{(1023 - 115) << 52:016X}
  %upper.value = fmul double %upper.float, %upper.scale
  %lower.value = fmul double %lower.float, %lower.scale
  %hi = fadd double %upper.value, %lower.value
  %back = fsub double %hi, %upper.value
  %lo = fsub double %lower.value, %back
  %nan.or.zero = fsub double %x, %x
  %hi.finite = fadd double %hi, %nan.or.zero
  %n.minus = sub i64 0, %n
  %n.signed = select i1 %signed, i64 %n.minus, i64 %n
  %r0 = insertvalue {{ double, double, i64 }} poison, double %hi.finite, 0
  %r1 = insertvalue {{ double, double, i64 }} %r0, double %lo, 1
  %r2 = insertvalue {{ double, double, i64 }} %r1, i64 %n.signed, 2
  ret {{ double, double, i64 }} %r2
}}
"""
"""The function, for |x| of 2^-9 or more; hi is NaN for infinities and NaN."""

NEEDS = ("declare i64 @llvm.fshl.i64(i64, i64, i64)", "declare i128 @llvm.ctlz.i128(i128, i1)")
"""What :data:`REDUCE` calls."""
