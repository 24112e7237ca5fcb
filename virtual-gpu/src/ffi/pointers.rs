//! Pointers that come over the C interface.
//!
//! The exported functions take these types where their header has a pointer. Each has a pointer's layout, and holds what the header promises: null, or
//! a pointer to what its type says for as long as the call takes, which is its lifetime. A value comes from a C caller alone, who has made that promise by calling an
//! `unsafe` function. Where the promise takes another parameter, as a length, the method is `unsafe` and says which.

use std::ffi::{CStr, c_char, c_void};
use std::marker::PhantomData;
use std::ptr;

use crate::device::Fault;

/// A pointer that stands for something that a library handed out. It is a number here, and never followed.
pub(crate) type Handle = u64;

/// A pointer that is a number here: an address of a device, or one of the host that is followed by unsafe code alone, if at all.
pub(crate) type Address = u64;

/// A pointer to where a result goes. What stands there before may be anything.
#[repr(transparent)]
pub(crate) struct Out<'call, T>(*mut T, PhantomData<&'call mut T>);

impl<T> Clone for Out<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Out<'_, T> {}

impl<T> Out<'_, T> {
    /// Where nothing is wanted.
    pub(crate) const fn unwanted() -> Self {
        Self(ptr::null_mut(), PhantomData)
    }

    /// Writes the result; null is an invalid value.
    pub(crate) fn set(self, value: T) -> Result<(), Fault> {
        if self.0.is_null() {
            return Err(Fault::InvalidValue);
        }
        // SAFETY: not null, so it points to a place for a T. Unaligned: not every caller is a C compiler.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }

    /// Writes the result where the caller wants it.
    pub(crate) fn set_if_wanted(self, value: T) {
        if !self.0.is_null() {
            let _ = self.set(value);
        }
    }

    /// Writes elements side by side, where the caller wants them.
    ///
    /// # Safety
    /// There is room for as many.
    pub(crate) unsafe fn set_all(self, values: &[T])
    where
        T: Copy,
    {
        if !self.0.is_null() {
            let bytes = size_of_val(values);
            // SAFETY: the caller says that there is room. Byte by byte, since the place need not be aligned.
            unsafe { ptr::copy_nonoverlapping(values.as_ptr().cast::<u8>(), self.0.cast::<u8>(), bytes) };
        }
    }

    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }
}

/// A pointer to what is given and changed.
#[repr(transparent)]
pub(crate) struct InOut<'call, T>(*mut T, PhantomData<&'call mut T>);

impl<T: Copy> InOut<'_, T> {
    /// What stands at an address that came as a number.
    ///
    /// # Safety
    /// A value of that type stands there, which may be changed, or it is zero.
    pub(crate) unsafe fn at(address: u64) -> Self {
        Self(address as *mut T, PhantomData)
    }

    /// What stands there now.
    pub(crate) fn get(&self) -> Option<T> {
        // SAFETY: not null, so it points to a T.
        (!self.0.is_null()).then(|| unsafe { self.0.read_unaligned() })
    }

    /// Writes the result; null is an invalid value.
    pub(crate) fn set(&self, value: T) -> Result<(), Fault> {
        self.place().set(value)
    }

    /// The place alone.
    pub(crate) fn place(&self) -> Out<'_, T> {
        Out(self.0, PhantomData)
    }
}

/// A pointer to where a structure goes that begins with its version, which the caller has set and nothing else of it.
#[repr(transparent)]
pub(crate) struct Versioned<'call, T>(Out<'call, T>);

impl<T> Versioned<'_, T> {
    /// The version that the caller set.
    pub(crate) fn version(&self) -> Option<u32> {
        // SAFETY: not null, so it points to a number.
        (!self.0.is_null()).then(|| unsafe { self.0.0.cast::<u32>().read_unaligned() })
    }

    /// Writes the structure; null is an invalid value.
    pub(crate) fn set(&self, value: T) -> Result<(), Fault> {
        self.0.set(value)
    }
}

/// A pointer to something whose type another parameter says: C's `void *`.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Untyped<'call>(Out<'call, c_void>);

impl Untyped<'_> {
    /// Writes a value; null is an invalid value.
    ///
    /// # Safety
    /// The place is one for so many bytes.
    pub(crate) unsafe fn set(self, value: &[u8]) -> Result<(), Fault> {
        if self.0.is_null() {
            return Err(Fault::InvalidValue);
        }
        // SAFETY: as the caller says.
        unsafe { self.set_if_wanted(value) };
        Ok(())
    }

    /// Writes a value where the caller wants it.
    ///
    /// # Safety
    /// The place is one for so many bytes.
    pub(crate) unsafe fn set_if_wanted(self, value: &[u8]) {
        // SAFETY: as the caller says.
        unsafe { Out(self.0.0.cast::<u8>(), PhantomData).set_all(value) };
    }

    /// Reads so many values.
    ///
    /// # Safety
    /// So many values of that type stand there, or it is null.
    pub(crate) unsafe fn to_vec<T: Copy>(self, count: usize) -> Vec<T> {
        // SAFETY: as the caller says.
        unsafe { Given(self.0.0.cast::<T>().cast_const(), PhantomData).to_vec(count) }
    }

    /// Reads a value; null is an invalid value.
    ///
    /// # Safety
    /// A value of that type stands there, or it is null.
    pub(crate) unsafe fn get<T: Copy>(self) -> Result<T, Fault> {
        // SAFETY: as the caller says.
        unsafe { self.to_vec(1) }.first().copied().ok_or(Fault::InvalidValue)
    }
}

/// A pointer to what is given.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Given<'call, T>(*const T, PhantomData<&'call T>);

impl<T: Copy> Given<'_, T> {
    /// What stands at an address that came as a number.
    ///
    /// # Safety
    /// A value of that type stands there, or it is zero.
    pub(crate) unsafe fn at(address: u64) -> Self {
        Self(address as *const T, PhantomData)
    }

    pub(crate) fn get(self) -> Option<T> {
        // SAFETY: not null, so it points to a T.
        (!self.0.is_null()).then(|| unsafe { self.0.read_unaligned() })
    }

    /// Elements side by side; none where it is null.
    ///
    /// # Safety
    /// So many stand there.
    pub(crate) unsafe fn to_vec(self, count: usize) -> Vec<T> {
        if self.0.is_null() {
            return Vec::new();
        }
        // SAFETY: as the caller says.
        (0..count).map(|index| unsafe { self.0.add(index).read_unaligned() }).collect()
    }
}

/// A C string that is given.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct GivenText<'call>(Given<'call, c_char>);

impl GivenText<'_> {
    pub(crate) fn get(self) -> Option<String> {
        let start = self.0.0;
        // SAFETY: not null, so it points to a string that ends with a zero byte.
        (!start.is_null()).then(|| unsafe { CStr::from_ptr(start) }.to_string_lossy().into_owned())
    }
}

impl GivenText<'_> {
    /// Whether it ends with one of these.
    pub(crate) fn ends_with(self, ends: &[&str]) -> bool {
        let start = self.0.0;
        // SAFETY: not null, so it points to a string that ends with a zero byte.
        !start.is_null() && ends.iter().any(|end| unsafe { CStr::from_ptr(start) }.to_bytes().ends_with(end.as_bytes()))
    }

    /// The same text, for later.
    ///
    /// # Safety
    /// It stays for as long as it is used.
    pub(crate) unsafe fn beyond_the_call(self) -> GivenText<'static> {
        GivenText(Given(self.0.0, PhantomData))
    }
}

/// A C string of the program's whole life, for functions that answer with one.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct StaticText(*const c_char);

/// The text as C wants it.
pub(crate) const fn text(text: &'static CStr) -> StaticText {
    StaticText(text.as_ptr())
}

/// Room for a C string.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct OutText<'call>(Out<'call, u8>);

impl OutText<'_> {
    /// Writes the text, cut to the room that there is, with its zero byte.
    ///
    /// # Safety
    /// There is that much room.
    pub(crate) unsafe fn set(self, text: &str, room: usize) -> Result<(), Fault> {
        if self.0.is_null() || room == 0 {
            return Err(Fault::InvalidValue);
        }
        let mut bytes = text.as_bytes()[..text.len().min(room - 1)].to_vec();
        bytes.push(0);
        // SAFETY: it is no longer than the room that the caller says there is.
        unsafe { self.0.set_all(&bytes) };
        Ok(())
    }
}

/// Moves bytes between two places, which may overlap.
///
/// # Safety
/// Both places hold that many bytes, readable and writable, for as long as this takes: those of a device by its own books and by the program, which does not free
/// meanwhile what it copies, those of the host by the caller's word. No reference to the destination is in use.
pub(crate) unsafe fn move_bytes(destination: u64, source: u64, bytes: usize) {
    // SAFETY: as the caller says.
    unsafe { ptr::copy(source as *const u8, destination as *mut u8, bytes) };
}

/// Fills a place with a value.
///
/// # Safety
/// The place holds that many values and is aligned for them, for as long as this takes: see [`move_bytes`].
pub(crate) unsafe fn fill<T: Copy>(destination: u64, value: T, count: usize) {
    for index in 0..count {
        // SAFETY: as the caller says.
        unsafe { (destination as *mut T).add(index).write(value) };
    }
}

/// Has a place read as zeros. Where it does so already nothing is written: memory that was never touched stays so.
///
/// # Safety
/// As for [`move_bytes`]: the place holds that many bytes, and no reference to it is in use.
pub(crate) unsafe fn clear(place: u64, bytes: usize) {
    // SAFETY: as the caller says.
    let is_clear = unsafe { std::slice::from_raw_parts(place as *const u8, bytes) }.iter().all(|&byte| byte == 0);
    if !is_clear {
        // SAFETY: as the caller says.
        unsafe { ptr::write_bytes(place as *mut u8, 0, bytes) };
    }
}

/// A function of the host whose address was kept as a number.
///
/// # Safety
/// It is the address of such a function, or zero.
pub(crate) unsafe fn host_function(address: usize) -> Option<unsafe extern "C" fn(*mut c_void)> {
    // SAFETY: as the caller says; a function that is not there is zero in C and in Rust.
    unsafe { std::mem::transmute::<usize, Option<unsafe extern "C" fn(*mut c_void)>>(address) }
}

/// Calls a host function that was put on a stream.
///
/// # Safety
/// The function may be called with that data.
pub(crate) unsafe fn call_host(function: Option<unsafe extern "C" fn(*mut c_void)>, data: *mut c_void) -> Result<(), Fault> {
    // SAFETY: as the caller says.
    unsafe { function.ok_or(Fault::InvalidValue)?(data) };
    Ok(())
}
