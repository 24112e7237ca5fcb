//! `libcupti.so.13`: the profiler's interface. A profiler may subscribe and enable what it likes; nothing is recorded.

use crate::device::Fault;
use crate::ffi::{Address, Handle, Out, StaticText, text};

/// CUPTI of CUDA 13.0.
const VERSION: u32 = 130_000;
/// The one subscriber.
const SUBSCRIBER: u64 = 0x100;
/// `CUPTI_ERROR_INVALID_PARAMETER`, and `CUPTI_ERROR_MAX_LIMIT_REACHED`: a buffer has no more records.
const INVALID_PARAMETER: i32 = 1;
const NO_MORE_RECORDS: i32 = 12;

fn answer(result: Result<(), Fault>) -> i32 {
    result.map_or(INVALID_PARAMETER, |()| 0)
}

exports! { answer;
    fn cuptiGetVersion(version: Out<u32>) {
        version.set(VERSION)
    }

    fn cuptiSubscribe(subscriber: Out<u64>, _callback: Address, _data: Address) {
        subscriber.set(SUBSCRIBER)
    }

    fn cuptiGetResultString(code: i32, string: Out<StaticText>) {
        string.set(text(if code == 0 { c"CUPTI_SUCCESS" } else { c"CUPTI error" }))
    }

    fn cuptiGetCallbackName(_domain: i32, _callback: u32, name: Out<StaticText>) {
        name.set(text(c"unknown"))
    }

    fn cuptiActivityGetNumDroppedRecords(_context: Handle, _stream: u32, count: Out<usize>) {
        count.set(0)
    }

    fn cuptiActivityPopExternalCorrelationId(_kind: i32, id: Out<u64>) {
        id.set_if_wanted(0);
        Ok(())
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityGetNextRecord(_buffer: Address, _bytes: usize, _record: Address) -> i32 {
    NO_MORE_RECORDS
}

succeed! {
    cuptiActivityDisable cuptiActivityEnable cuptiActivityEnableCudaEventDeviceTimestamps cuptiActivityEnableDriverApi
    cuptiActivityEnableRuntimeApi cuptiActivityFlushAll cuptiActivityPushExternalCorrelationId cuptiActivityRegisterCallbacks
    cuptiActivityRegisterTimestampCallback cuptiActivitySetAttribute cuptiEnableCallback cuptiEnableDomain cuptiFinalize
    cuptiUnsubscribe
}
